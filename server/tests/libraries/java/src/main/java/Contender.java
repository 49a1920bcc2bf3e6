import io.etcd.jetcd.ByteSequence;
import io.etcd.jetcd.Client;
import java.nio.charset.StandardCharsets;

/** Stands in line by jetcd, for a lock or an election: says its key when it has it, and gives it back when told a line. */
public final class Contender {
    public static void main(String[] arguments) throws Exception {
        ByteSequence name = Calls.bytes(arguments[2]);
        try (Client client = Client.builder().endpoints(arguments[0]).build()) {
            long lease = client.getLeaseClient().grant(120).get().getID();
            if (arguments[1].equals("lock")) {
                ByteSequence key = client.getLockClient().lock(name, lease).get().getKey();
                hold(key);
                client.getLockClient().unlock(key).get();
            } else {
                var leader = client.getElectionClient().campaign(name, lease, Calls.bytes("jetcd")).get().getLeader();
                hold(leader.getKey());
                client.getElectionClient().resign(leader).get();
            }
            client.getLeaseClient().revoke(lease).get();
        }
        System.exit(0);
    }

    private static void hold(ByteSequence key) throws Exception {
        System.out.println(key.toString(StandardCharsets.UTF_8));
        System.in.read();
    }
}
