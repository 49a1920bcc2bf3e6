import io.etcd.jetcd.ByteSequence;
import io.etcd.jetcd.Client;
import io.etcd.jetcd.Election;
import io.etcd.jetcd.Watch;
import io.etcd.jetcd.election.LeaderResponse;
import io.etcd.jetcd.lease.LeaseKeepAliveResponse;
import io.etcd.jetcd.op.Cmp;
import io.etcd.jetcd.op.CmpTarget;
import io.etcd.jetcd.op.Op;
import io.etcd.jetcd.options.DeleteOption;
import io.etcd.jetcd.options.GetOption;
import io.etcd.jetcd.options.LeaseOption;
import io.etcd.jetcd.options.PutOption;
import io.etcd.jetcd.options.WatchOption;
import io.etcd.jetcd.support.Observers;
import io.etcd.jetcd.watch.WatchEvent;
import java.io.ByteArrayOutputStream;
import java.nio.charset.StandardCharsets;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;

/** What jetcd offers, but for users and roles. Says `ok NAME` or `not ok NAME: why`, a line a part. */
public final class Calls {
    interface Part {
        void run(Client client) throws Exception;
    }

    static ByteSequence bytes(String text) {
        return ByteSequence.from(text, StandardCharsets.UTF_8);
    }

    static void that(boolean holds, Object found) {
        if (!holds) {
            throw new AssertionError("found " + found);
        }
    }

    static <T> T of(CompletableFuture<T> future) throws Exception {
        return future.get(30, TimeUnit.SECONDS);
    }

    public static void main(String[] arguments) {
        String[] endpoints = System.getenv("ENDPOINTS").split(",");
        Map<String, Part> parts = new LinkedHashMap<>();
        parts.put("keysAndValues", Calls::keysAndValues);
        parts.put("transactions", Calls::transactions);
        parts.put("leases", Calls::leases);
        parts.put("watches", Calls::watches);
        parts.put("locks", Calls::locks);
        parts.put("elections", Calls::elections);
        parts.put("maintenance", client -> maintenance(client, endpoints));
        int failed = 0;
        for (var part : parts.entrySet()) {
            try (Client client = Client.builder().endpoints(endpoints).build()) {
                part.getValue().run(client);
                System.out.println("ok " + part.getKey());
            } catch (Throwable error) {
                failed = 1;
                System.out.println("not ok " + part.getKey() + ": " + String.valueOf(error).lines().findFirst().orElse(""));
            }
        }
        System.exit(failed);
    }

    static void keysAndValues(Client client) throws Exception {
        var kv = client.getKVClient();
        of(kv.put(bytes("a/1"), bytes("one")));
        var put = of(kv.put(bytes("a/1"), bytes("two"), PutOption.builder().withPrevKV().build()));
        that(put.getPrevKv().getValue().equals(bytes("one")), put);
        of(kv.put(bytes("a/2"), bytes("three")));
        var all = of(kv.get(bytes("a/"), GetOption.builder().isPrefix(true).withSortOrder(GetOption.SortOrder.DESCEND).withLimit(1).build()));
        that(all.getCount() == 2 && all.isMore() && all.getKvs().get(0).getKey().equals(bytes("a/2")), all);
        var old = of(kv.get(bytes("a/1"), GetOption.builder().withRevision(put.getHeader().getRevision() - 1).build()));
        that(old.getKvs().get(0).getValue().equals(bytes("one")), old);
        var gone = of(kv.delete(bytes("a/"), DeleteOption.builder().isPrefix(true).withPrevKV(true).build()));
        that(gone.getDeleted() == 2 && gone.getPrevKvs().size() == 2, gone);
    }

    static void transactions(Client client) throws Exception {
        ByteSequence key = bytes("t/1");
        for (boolean first : new boolean[] {true, false}) {
            var done = of(client.getKVClient().txn().If(new Cmp(key, Cmp.Op.EQUAL, CmpTarget.version(0)))
                .Then(Op.put(key, bytes("x"), PutOption.DEFAULT)).Else(Op.get(key, GetOption.DEFAULT)).commit());
            that(done.isSucceeded() == first, done);
        }
        of(client.getKVClient().delete(key));
    }

    static void leases(Client client) throws Exception {
        var leases = client.getLeaseClient();
        long lease = of(leases.grant(60)).getID();
        of(client.getKVClient().put(bytes("l/1"), bytes("x"), PutOption.builder().withLeaseId(lease).build()));
        that(of(leases.keepAliveOnce(lease)).getTTL() == 60, lease);
        CompletableFuture<LeaseKeepAliveResponse> renewed = new CompletableFuture<>();
        try (var stream = leases.keepAlive(lease, Observers.observer(renewed::complete))) {
            that(of(renewed).getTTL() == 60, renewed);
        }
        var left = of(leases.timeToLive(lease, LeaseOption.builder().withAttachedKeys().build()));
        that(left.getGrantedTTL() == 60 && left.getKeys().get(0).equals(bytes("l/1")), left);
        of(leases.revoke(lease));
        that(of(client.getKVClient().get(bytes("l/1"))).getCount() == 0, "the key");
    }

    static void watches(Client client) throws Exception {
        BlockingQueue<WatchEvent> events = new LinkedBlockingQueue<>();
        long from = of(client.getKVClient().put(bytes("w/1"), bytes("x"))).getHeader().getRevision();
        of(client.getKVClient().delete(bytes("w/1")));
        var options = WatchOption.builder().isPrefix(true).withRevision(from).withPrevKV(true).build();
        try (var watcher = client.getWatchClient().watch(bytes("w/"), options, Watch.listener(told -> events.addAll(told.getEvents())))) {
            that(events.poll(30, TimeUnit.SECONDS).getEventType() == WatchEvent.EventType.PUT, "no put");
            that(events.poll(30, TimeUnit.SECONDS).getPrevKV().getValue().equals(bytes("x")), "no delete");
        }
    }

    static void locks(Client client) throws Exception {
        long one = of(client.getLeaseClient().grant(60)).getID();
        long two = of(client.getLeaseClient().grant(60)).getID();
        var held = of(client.getLockClient().lock(bytes("lock"), one));
        var waiting = client.getLockClient().lock(bytes("lock"), two);
        of(client.getLockClient().unlock(held.getKey()));
        of(client.getLockClient().unlock(of(waiting).getKey()));
        of(client.getLeaseClient().revoke(one));
        of(client.getLeaseClient().revoke(two));
    }

    static void elections(Client client) throws Exception {
        var elections = client.getElectionClient();
        BlockingQueue<LeaderResponse> seen = new LinkedBlockingQueue<>();
        elections.observe(bytes("e"), new Election.Listener() {
            public void onNext(LeaderResponse response) { seen.add(response); }
            public void onError(Throwable error) { }
            public void onCompleted() { }
        });
        long lease = of(client.getLeaseClient().grant(60)).getID();
        var leader = of(elections.campaign(bytes("e"), lease, bytes("one"))).getLeader();
        that(of(elections.leader(bytes("e"))).getKv().getValue().equals(bytes("one")), leader);
        that(seen.poll(30, TimeUnit.SECONDS).getKv().getValue().equals(bytes("one")), "no leader");
        of(elections.proclaim(leader, bytes("two")));
        that(seen.poll(30, TimeUnit.SECONDS).getKv().getValue().equals(bytes("two")), "no proclamation");
        of(elections.resign(leader));
        of(client.getLeaseClient().revoke(lease));
    }

    static void maintenance(Client client, String[] endpoints) throws Exception {
        that(of(client.getClusterClient().listMember()).getMembers().size() == endpoints.length, "members");
        var maintenance = client.getMaintenanceClient();
        var status = of(maintenance.statusMember(endpoints[0]));
        that(status.getLeader() != 0 && status.getDbSize() > 0 && status.getRaftIndex() > 0, status);
        of(maintenance.hashKV(endpoints[0], 0));
        of(maintenance.defragmentMember(endpoints[0]));
        that(of(maintenance.listAlarms()).getAlarms().isEmpty(), "alarms");
        ByteArrayOutputStream whole = new ByteArrayOutputStream();
        that(of(maintenance.snapshot(whole)) == whole.size() && whole.size() > 0, whole.size());
    }
}
