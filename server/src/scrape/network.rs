//! What goes over the network: to and from each other member, and to and from all clients together.

use std::sync::Arc;

use crate::ids::MemberId;
use crate::metrics::{Counter, Gauge, Meters, Registry};
use crate::node::{Node, View};
use crate::peers::Peers;
use crate::traffic::Traffic;

pub struct Network {
    view: Arc<View>,
    peers: Peers,
    own: String,
    meters: Arc<Meters>,
    registry: Arc<Registry>,
    clients: Arc<Traffic>,
    received: Counter,
    sent: Counter,
    connections: Gauge,
}

impl Network {
    pub fn new(node: &Node, own: MemberId, registry: Arc<Registry>, clients: Arc<Traffic>) -> Network {
        let counter = |name, help| registry.counter((name, help), &[]);
        Network {
            view: node.view.clone(),
            peers: node.peers.clone(),
            own: own.to_string(),
            meters: node.meters.clone(),
            received: counter(
                "etcd_network_client_grpc_received_bytes_total",
                "Bytes received from clients, all that goes over their connections.",
            ),
            sent: counter(
                "etcd_network_client_grpc_sent_bytes_total",
                "Bytes sent to clients, all that goes over their connections.",
            ),
            connections: registry
                .gauge(("tenure_client_connections", "Connections of clients that are open."), &[]),
            registry,
            clients,
        }
    }

    pub fn read(&self) {
        self.received.absolute(self.clients.received());
        self.sent.absolute(self.clients.sent());
        self.connections.set(self.clients.open() as f64);
        let others: Vec<u64> = {
            let machine = self.view.machine();
            machine.members().iter().map(|member| member.id).collect()
        };
        let traffic = self.peers.traffic();
        let nothing = Arc::<Traffic>::default();
        for member in others.iter().copied().filter(|member| MemberId(*member).to_string() != self.own) {
            // So that they are there, though this member may never lead.
            self.meters.peers.of(member);
            let exchanged = traffic.iter().find(|(other, _)| *other == member);
            self.read_peer(member, exchanged.map_or(&nothing, |(_, traffic)| traffic), true);
        }
        for (member, traffic) in traffic.iter().filter(|(member, _)| !others.contains(member)) {
            self.read_peer(*member, traffic, false);
        }
    }

    /// `known`: it belongs to the cluster still.
    fn read_peer(&self, member: u64, traffic: &Traffic, known: bool) {
        let name = MemberId(member).to_string();
        let (to, from) = ([("To", name.as_str())], [("From", name.as_str())]);
        let (local, remote) = (("Local", self.own.as_str()), ("Remote", name.as_str()));
        let counter = |name, help, labels| self.registry.counter((name, help), labels);
        let gauge = |name, help| self.registry.gauge((name, help), &[local, remote]);
        counter("etcd_network_peer_sent_bytes_total", "Bytes sent to this member.", &to)
            .absolute(traffic.sent());
        counter("etcd_network_peer_received_bytes_total", "Bytes received from this member.", &from)
            .absolute(traffic.received());
        gauge("etcd_network_known_peers", "Whether this is a member of the cluster.").set(if known {
            1.0
        } else {
            0.0
        });
        gauge("etcd_network_active_peers", "Whether there is a connection with this member.")
            .set(if traffic.open() > 0 { 1.0 } else { 0.0 });
    }
}
