//! Several servers that form one cluster, each a process with a directory of its own. They are stopped, killed, frozen and
//! started again one by one; who leads is asked of them, not remembered.

use std::time::Duration;

use tenure_grpc::etcdserverpb::maintenance_client::MaintenanceClient;
use tenure_proto::etcdserverpb::{StatusRequest, StatusResponse};

use super::server::{Launch, Server};

/// For anything that a living cluster does within an election or two.
const BOUND: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(10);
/// A frozen server accepts connections and answers nothing.
const ANSWER_BOUND: Duration = Duration::from_secs(2);

/// Members by number, from 0. Each is named `m` and its number.
pub struct Cluster {
    pub members: Vec<Server>,
}

impl Cluster {
    /// Founders, started together; all of them serve.
    pub fn start(size: usize) -> Cluster {
        Cluster::start_with(size, &[])
    }

    /// With flags beside the usual ones.
    pub fn start_with(size: usize, extra: &[&str]) -> Cluster {
        let mut cluster = Cluster::prepared(size, extra);
        cluster.members.iter_mut().for_each(Server::begin);
        cluster.members.iter_mut().for_each(Server::wait_until_ready);
        cluster
    }

    /// Founders that are not started yet.
    pub fn prepared(size: usize, extra: &[&str]) -> Cluster {
        let homes: Vec<_> = (0..size).map(|_| tempfile::tempdir().expect("a temporary directory")).collect();
        let mut launches: Vec<Launch> =
            homes.iter().map(|home| Launch::alone(Launch::program_under_test(), home.path())).collect();
        for (number, launch) in launches.iter_mut().enumerate() {
            launch.name = format!("m{number}");
            launch.extra = extra.iter().map(ToString::to_string).collect();
        }
        let named = launches.iter().map(|launch| format!("{}={}", launch.name, launch.peer_url()));
        let founders = named.collect::<Vec<_>>().join(",");
        let prepare = |(mut launch, home): (Launch, _)| {
            launch.initial_cluster = Some(founders.clone());
            Server::prepared(launch, home)
        };
        Cluster { members: launches.into_iter().zip(homes).map(prepare).collect() }
    }

    /// A further member's process, not started yet, that will join those that are `present`; they have to be told of it
    /// first. Gives its number.
    pub fn newcomer(&mut self, present: &[usize], extra: &[&str]) -> usize {
        let number = self.members.len();
        let home = tempfile::tempdir().expect("a temporary directory");
        let mut launch = Launch::alone(Launch::program_under_test(), home.path());
        launch.name = format!("m{number}");
        let others = present.iter().map(|member| &self.members[*member].launch);
        let named = others.chain([&launch]).map(|launch| format!("{}={}", launch.name, launch.peer_url()));
        launch.initial_cluster = Some(named.collect::<Vec<_>>().join(","));
        launch.extra =
            ["--initial-cluster-state", "existing"].iter().chain(extra).map(ToString::to_string).collect();
        self.members.push(Server::prepared(launch, home));
        number
    }

    pub fn endpoints(&self) -> Vec<String> {
        self.members.iter().map(Server::endpoint).collect()
    }

    /// What a member says of itself; None if it does not serve.
    pub async fn status(&self, member: usize) -> Option<StatusResponse> {
        let asked = async {
            let mut client = MaintenanceClient::connect(self.members[member].endpoint()).await.ok()?;
            client.status(StatusRequest {}).await.ok()
        };
        Some(tokio::time::timeout(ANSWER_BOUND, asked).await.ok()??.into_inner())
    }

    /// Waits for a member that says it leads; of several the one of the latest term.
    pub async fn leader(&self) -> usize {
        self.leader_other_than(None).await
    }

    /// The same, passing over one that may not have heard of its fall.
    pub async fn leader_other_than(&self, former: Option<usize>) -> usize {
        let found = async {
            loop {
                let mut leading = None;
                for member in (0..self.members.len()).filter(|member| Some(*member) != former) {
                    let Some(status) = self.status(member).await else { continue };
                    if status.header.is_some_and(|header| header.member_id == status.leader) {
                        leading = leading.max(Some((status.raft_term, member)));
                    }
                }
                match leading {
                    Some((_, member)) => return member,
                    None => tokio::time::sleep(PAUSE).await,
                }
            }
        };
        tokio::time::timeout(BOUND, found).await.expect("no member came to lead")
    }

    /// Waits until a member has applied what the leader had applied when this was called.
    pub async fn caught_up(&self, member: usize) {
        let caught_up = async {
            let leader = self.leader().await;
            let goal = self.status(leader).await.map_or(u64::MAX, |status| status.raft_applied_index);
            while self.status(member).await.is_none_or(|status| status.raft_applied_index < goal) {
                tokio::time::sleep(PAUSE).await;
            }
        };
        tokio::time::timeout(BOUND, caught_up).await.expect("the member did not catch up");
    }
}
