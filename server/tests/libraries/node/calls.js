// What the Node.js client `etcd3` offers, whose package brings no tests, but for users and roles. Says `ok NAME` or
// `not ok NAME: why`, a line a part.
import assert from 'node:assert/strict';
import { once } from 'node:events';
import etcd3 from 'etcd3';

const { Etcd3, EtcdLockFailedError, EtcdLeaseInvalidError } = etcd3;
// The package names these for TypeScript only: serializable with and without a check for writes, repeatable reads.
const ISOLATIONS = [0, 1, 2];
const hosts = process.env.ENDPOINTS.split(',');

const parts = {
  async keysAndValues(client) {
    await client.put('a/1').value('one');
    await client.put('a/2').value('2');
    await client.put('a/3').value('{"x":3}');
    assert.equal(await client.get('a/1').string(), 'one');
    assert.equal(await client.get('a/2').number(), 2);
    assert.deepEqual(await client.get('a/3').json(), { x: 3 });
    assert.equal(await client.get('a/none').string(), null);
    assert.equal(await client.get('a/1').exists(), true);
    assert.deepEqual(await client.getAll().prefix('a/').sort('Key', 'Descend').limit(2).keys(), ['a/3', 'a/2']);
    assert.equal(await client.getAll().prefix('a/').count(), 3);
    assert.equal((await client.put('a/1').value('two').getPrevious()).value.toString(), 'one');
    const revision = (await client.get('a/1').exec()).header.revision;
    await client.put('a/1').touch();
    assert.equal(await client.get('a/1').revision(revision).string(), 'two');
    assert.equal((await client.delete().range(client.range({ start: 'a/1', end: 'a/3' }))).deleted, '2');
    assert.equal((await client.delete().prefix('a/').getPrevious())[0].key.toString(), 'a/3');
    const space = client.namespace('space/');
    await space.put('k').value('v');
    assert.equal(await client.get('space/k').string(), 'v');
    await space.delete().all();
  },
  async transactions(client) {
    const claim = () =>
      client.if('t/1', 'Version', '==', 0).then(client.put('t/1').value('x')).else(client.get('t/1')).commit();
    assert.equal((await claim()).succeeded, true);
    const second = await claim();
    assert.equal(second.succeeded, false);
    assert.equal(second.responses[0].response_range.kvs[0].value.toString(), 'x');
    await client.delete().key('t/1');
  },
  async memory(client) {
    await client.put('stm/n').value('0');
    const add = isolation => client.stm({ isolation, retries: 100 }).transact(async tx => {
      await tx.put('stm/n').value(1 + (await tx.get('stm/n').number()));
    });
    await Promise.all([...ISOLATIONS, ...ISOLATIONS].map(add));
    assert.equal(await client.get('stm/n').number(), 6);
  },
  async leases(client) {
    const lease = client.lease(10);
    await lease.put('l/1').value('x');
    const renewed = once(lease, 'keepaliveSucceeded');
    await lease.keepaliveOnce();
    await renewed;
    assert.deepEqual(await client.leaseClient.leaseTimeToLive({ ID: await lease.grant(), keys: true })
      .then(left => left.keys.map(String)), ['l/1']);
    await lease.revoke();
    assert.equal(await client.get('l/1').exists(), false);
    await assert.rejects(lease.put('l/1').value('x'), EtcdLeaseInvalidError);
  },
  async watches(client) {
    const watcher = await client.watch().prefix('w/').create();
    const [put] = await Promise.all([once(watcher, 'put'), client.put('w/1').value('x')]);
    assert.equal(put[0].value.toString(), 'x');
    const [gone] = await Promise.all([once(watcher, 'delete'), client.delete().key('w/1')]);
    assert.equal(gone[0].key.toString(), 'w/1');
    await watcher.cancel();
    const past = await client.watch().key('w/1').startRevision(put[0].mod_revision).create();
    const [[first]] = await Promise.all([once(past, 'put')]);
    assert.equal(first.key.toString(), 'w/1');
    await past.cancel();
  },
  async locks(client) {
    const lock = await client.lock('lock').ttl(10).acquire();
    await assert.rejects(client.lock('lock').acquire(), EtcdLockFailedError);
    await lock.release();
    assert.equal(await client.lock('lock').do(() => 7), 7);
  },
  async elections(client) {
    const election = client.election('election', 10);
    const campaign = election.campaign('one');
    await once(campaign, 'elected');
    const observer = await election.observe();
    assert.equal(observer.leader() ?? (await once(observer, 'change'))[0], 'one');
    await Promise.all([once(observer, 'change'), campaign.proclaim('still one')]);
    assert.equal(await election.leader(), 'still one');
    const other = client.election('election', 10).campaign('two');
    await Promise.all([once(other, 'elected'), campaign.resign()]);
    await other.resign();
    await observer.cancel();
  },
  async maintenance(client) {
    const status = await client.maintenance.status();
    assert.ok(status.leader !== '0' && Number(status.dbSize) > 0);
    assert.equal((await client.cluster.memberList({})).members.length, hosts.length);
    assert.deepEqual((await client.maintenance.alarm({})).alarms, []);
    await client.maintenance.defragment();
    assert.ok((await client.maintenance.hash()).hash);
    await assert.rejects(client.cluster.memberRemove({ ID: 12345 }), /member not found/);
    await client.kv.compact({ revision: (await client.put('m').value('')).header.revision });
  },
};

let failed = 0;
for (const [name, part] of Object.entries(parts)) {
  const client = new Etcd3({ hosts });
  let timer;
  const patience = new Promise((_, reject) => { timer = setTimeout(reject, 60_000, new Error('no end within 60 s')); });
  try {
    await Promise.race([part(client), patience]);
    console.log(`ok ${name}`);
  } catch (error) {
    failed = 1;
    console.log(`not ok ${name}: ${String(error?.message ?? error).replace(/\s+/g, ' ')}`);
  }
  clearTimeout(timer);
  client.close();
}
process.exit(failed);
