"""Every call of the asynchronous Python client `aetcd`, whose package brings no tests, against the first of ENDPOINTS.

Says `ok NAME` or `not ok NAME: why`, a line a part.
"""

import asyncio
import io
import os
import sys
import urllib.parse

import aetcd
from aetcd import rtypes

FIRST = urllib.parse.urlsplit(os.environ["ENDPOINTS"].split(",")[0])


async def keys_and_values(client):
    await client.put(b"a/1", b"one")
    put = await client.put(b"a/1", b"two", prev_kv=True)
    assert put.prev_kv.value == b"one"
    got = await client.get(b"a/1")
    assert (got.value, got.version) == (b"two", 2)
    assert await client.get(b"a/none") is None
    await client.put(b"a/2", b"three")
    assert [kv.key async for kv in as_async(await client.get_prefix(b"a/", sort_order="descend", sort_target="key"))] == [b"a/2", b"a/1"]
    assert len(list(await client.get_range(b"a/1", b"a/2"))) == 1
    assert await client.replace(b"a/1", b"two", b"four")
    assert not await client.replace(b"a/1", b"two", b"five")
    assert (await client.delete(b"a/1", prev_kv=True)).prev_kv.value == b"four"
    assert (await client.delete_prefix(b"a/")).deleted == 1
    assert len(list(await client.get_all(keys_only=True))) >= 0


async def transactions(client):
    compare = [client.transactions.version(b"t/1") == 0, client.transactions.create(b"t/1") == 0]
    done, _ = await client.transaction(
        compare, [client.transactions.put(b"t/1", b"x"), client.transactions.get(b"t/1")], []
    )
    assert done
    done, answers = await client.transaction(compare, [], [client.transactions.get(b"t/1"), client.transactions.delete(b"t/1")])
    assert not done and len(answers) == 2


async def leases(client):
    lease = await client.lease(60, lease_id=4711)
    await client.put(b"l/1", b"", lease=lease)
    assert await lease.granted_ttl() == 60 and await lease.remaining_ttl() > 50
    assert list(await lease.keys()) == [b"l/1"]
    await lease.refresh()
    await lease.revoke()
    assert await client.get(b"l/1") is None


async def watches(client):
    watch = await client.watch_prefix(b"w/")
    await client.put(b"w/1", b"x")
    await client.delete(b"w/1")
    kinds = []
    async for event in watch:
        kinds.append(event.kind)
        if len(kinds) == 2:
            await watch.cancel()
            break
    assert kinds == [rtypes.EventKind.PUT, rtypes.EventKind.DELETE], kinds
    once = asyncio.create_task(client.watch_once(b"w/2", timeout=10))
    while not once.done():
        await client.put(b"w/2", b"y")
        await asyncio.sleep(0.01)
    assert once.result().kv.value == b"y"


async def locks(client):
    async with client.lock(b"lock", ttl=20) as held:
        assert await held.is_acquired()
        await held.refresh()
        assert not await client.lock(b"lock", ttl=20).acquire(timeout=0)
    assert await client.lock(b"lock", ttl=20).acquire(timeout=5)


async def maintenance(client):
    status = await client.status()
    assert status.leader and status.db_size > 0
    assert len([member async for member in client.members()]) == len(os.environ["ENDPOINTS"].split(","))
    await client.defragment()
    assert isinstance(await client.hash(), int)
    put = await client.put(b"m/1", b"")
    await client.compact(put.header.revision, physical=True)
    assert not [alarm async for alarm in client.list_alarms()]
    assert len(await client.create_alarm()) == 1
    assert len([alarm async for alarm in client.list_alarms()]) == 1
    await client.disarm_alarm()
    file = io.BytesIO()
    await client.snapshot(file)
    assert file.tell() > 0


async def as_async(items):
    for item in items:
        yield item


async def main():
    failed = False
    for part in [keys_and_values, transactions, leases, watches, locks, maintenance]:
        try:
            async with aetcd.Client(host=FIRST.hostname, port=FIRST.port) as client:
                await asyncio.wait_for(part(client), 60)
            print(f"ok {part.__name__}")
        except Exception as error:
            failed = True
            print(f"not ok {part.__name__}: {error!r}")
    sys.exit(failed)


asyncio.run(main())
