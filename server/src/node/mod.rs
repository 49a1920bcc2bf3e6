//! The running replica: every task of this member lives here. What the api may use of it are handles: [`Writer`],
//! [`Reader`], [`Leases`], [`Watches`], [`Sweeper`], [`Quota`], [`Members`], and for recipes [`Here`].
//!
//! | task            | owns                     | input                          | output                    | bound           | when full          |
//! |-----------------|--------------------------|--------------------------------|---------------------------|-----------------|--------------------|
//! | read round      | the readers that wait    | readers                        | one proof for all of them | callers         | joins the next     |
//! | sender          | to whom proposals go     | tickets, leadership            | batches to the leader     | the writer's    | refused before     |
//! | renewals        | those not yet asked for  | leases' streams                | one question at a time    | callers         | joins the next     |
//! | telling         | the voters' ears         | renewals, standing of voters   | one round to all of them  | callers         | joins the next     |
//! | lease count     | the lessor's clock hand  | leadership, deadlines, grants  | expiry proposals          | 500 an entry    | next entry         |
//! | sweeper         | the walk over the index  | compactions                    | dropped records           | 1000 keys/slice | store's back-pressure |
//! | compactor       | notes of revisions       | the clock                      | compaction proposals      | ten notes       |                    |
//! | quota           |                          | the clock                      | clearing of NOSPACE       |                 |                    |
//! | watch progress  |                          | the clock                      | progress of idle watchers |                 |                    |
//! | audit           | up to where members agree | the clock, members' sums      | the CORRUPT alarm         | one at a time   | the next interval  |
//! | publisher       |                          | leadership                     | this member's addresses   | once            | tries again        |
//! | steward         | what is due by name      | changes of recipes' keys       | recipes' transitions      | a name once     | waits its turn     |
//! | promotion       |                          | leadership, the clock          | votes for new members     | one at a time   | waits its turn     |
//! | standing        |                          | the clock                      | that this member was removed | one call a member |              |

mod audit;
mod compactor;
mod error;
mod forwarding;
pub mod hash;
mod history;
mod leases;
mod members;
mod primitives;
mod quota;
mod read_index;
mod reader;
pub mod registry;
pub mod steward;
mod sweeper;
mod watches;
mod writer;

use std::sync::Arc;
use std::time::Duration;

use tenure_disk::store::Store;
use tenure_disk::wal::Wal;
use tenure_proto::internal::MemberPublish;
use tenure_proto::internal::command::Wish;
use tenure_recipes::{Root, election, lock};
use tenure_state::{Effect, Position};
use tokio::task::JoinSet;

pub use crate::raft::View;
pub use compactor::Retention;
pub use error::Error;
pub use leases::{Leases, Renewed, TimeToLive};
pub use members::{Members, Refused, Rules};
pub use primitives::{Following as Watched, Here, Trouble};
pub use quota::{DatabaseSize, Quota};
pub use read_index::ReadIndex;
pub use reader::Reader;
pub use sweeper::{Pace, Sweeper};
pub use watches::{Next, WatchStream, Watches};
pub use writer::{Limits, Writer, Written};

use crate::clock::Clock;
use crate::ids::{LeaseIds, MemberId};
use crate::metrics::Meters;
use crate::peers::{Peers, Routes};
use crate::raft::{self, Consensus, Mandate, Outlet, Reply};
use audit::Audit;
use compactor::Compactor;
use forwarding::{ReadIndexes, Tickets};
use leases::Counting;
use steward::{Recipe, Recipes, Steward};

/// What a node is to be.
pub struct Settings {
    pub member: MemberId,
    /// The cluster's, for members-to-be.
    pub token: String,
    pub name: String,
    pub client_urls: Vec<String>,
    /// The members a new cluster is founded with; not looked at once there is a log. None: this member was added, and its
    /// log comes from the others.
    pub founders: std::collections::BTreeMap<u64, Vec<String>>,
    pub heartbeat: Duration,
    pub election: Duration,
    pub snapshot_entries: u64,
    pub kept_entries: u64,
    pub pre_vote: bool,
    pub membership: Rules,
    pub sweep: Pace,
    pub record_bytes_max: usize,
    pub request_bytes_max: usize,
    /// None: no bound.
    pub quota_bytes_max: Option<u64>,
    pub retention: Retention,
    pub watch_progress_interval: Duration,
    /// Between two comparisons of what the members hold; zero: never.
    pub audit_interval: Duration,
    /// Thrown anew at each start: where this member begins to number what it has others propose.
    pub first_ticket: u64,
    pub meters: Arc<Meters>,
}

/// etcd's time for a request, to which two election timeouts are added.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// Proposals under way at once: count and bytes.
const UNDER_WAY_MAX: usize = 16_384;
const UNDER_WAY_BYTES_MAX: usize = 256 << 20;
/// What a message of forwarded proposals holds beside the last one, which may be as large as a request, bytes.
const FORWARDED_BYTES_MAX: usize = 1 << 20;
/// Between two looks at whether this member serves yet.
const READY_LOOK: Duration = Duration::from_millis(5);
/// Between two attempts to publish this member's addresses.
const PUBLISH_RETRY: Duration = Duration::from_millis(200);

/// What is seen to when keys below `/_tenure/` go.
const RECIPES: Recipes = &[
    Recipe {
        kind: "election",
        concerned: steward::bereft,
        standing: steward::name,
        help: |here, name| Box::pin(async move { election::help(&here, &Root::server(), &name).await }),
    },
    registry::RECIPE,
    Recipe {
        kind: "lock",
        concerned: steward::bereft,
        standing: steward::name,
        help: |here, name| {
            Box::pin(async move { lock::help(&here, &Root::server(), &name, here.unix_ms()).await })
        },
    },
];

/// A member at work.
pub struct Node {
    pub consensus: Consensus,
    pub view: Arc<View>,
    pub writer: Writer,
    pub reader: Reader,
    pub read_index: ReadIndex,
    pub leases: Leases,
    pub watches: Watches,
    pub sweeper: Sweeper,
    pub quota: Quota,
    pub clock: Arc<dyn Clock>,
    pub peers: Peers,
    pub members: Members,
    pub meters: Arc<Meters>,
    tasks: JoinSet<()>,
}

/// Where the effects of applied commands go, in this order.
struct Outlets {
    watches: Watches,
    counting: Arc<Counting>,
    sweeper: Sweeper,
    tickets: Arc<Tickets>,
    following: members::Following,
}

impl Outlet for Outlets {
    fn follow(&self, _at: Position, effects: Vec<Effect>) {
        for effect in effects {
            self.counting.follow(&effect);
            self.sweeper.follow(&effect);
            if let Effect::Changed(change) = &effect {
                self.counting.meters.changes.follow(change);
            }
            if matches!(effect, Effect::MembersChanged { .. }) {
                self.following.follow();
            }
            self.watches.follow(effect);
        }
    }

    fn restored(&self) {
        self.counting.restored();
        self.following.follow();
        self.sweeper.restored();
        self.watches.restored();
        self.tickets.restored();
    }

    fn led(&self, mandate: Mandate) {
        self.tickets.led(mandate);
    }

    fn answer(&self, number: u64, reply: Reply) {
        self.tickets.answer(number, reply);
    }
}

impl Node {
    /// Takes up the log and the state, and waits until what was committed before is applied again.
    pub async fn start(
        settings: Settings,
        clock: Arc<dyn Clock>,
        peers: Peers,
        wal: Wal,
        store: Store,
    ) -> Result<Node, StartError> {
        let machine = raft::load(&store, settings.record_bytes_max).map_err(StartError::new)?;
        let view = Arc::new(View::new(machine, store));
        let watches = Watches::new(view.clone());
        let counting = Arc::new(Counting::new(view.clone(), clock.clone(), settings.meters.clone()));
        let (sweeper, sweeping) = Sweeper::new(view.clone(), settings.sweep);
        let (own, limits @ Limits { timeout, .. }) = (settings.member, limits(&settings));
        let tickets = Arc::new(Tickets::new(own.0, settings.first_ticket, timeout.as_millis() as u64));
        let following = members::Following::new(own, view.clone(), peers.clone());
        let outlets = Arc::new(Outlets {
            watches: watches.clone(),
            counting: counting.clone(),
            sweeper: sweeper.clone(),
            following: following.clone(),
            tickets: tickets.clone(),
        });
        let consensus = Consensus::start(options(&settings), wal, view.clone(), outlets, peers.clone())
            .await
            .map_err(StartError::new)?;
        consensus.found(settings.founders.clone()).await.map_err(StartError::new)?;
        consensus.recover().await.map_err(StartError::new)?;

        let writer = Writer::new(consensus.clone(), tickets.clone(), limits);
        let elsewhere = ReadIndexes::new(peers.clone());
        let read_index =
            ReadIndex::new(consensus.clone(), elsewhere, clock.clone(), timeout, settings.election);
        let leases = Leases::new(leases::Parts {
            view: view.clone(),
            writer: writer.clone(),
            read_index: read_index.clone(),
            counting,
            consensus: consensus.clone(),
            peers: peers.clone(),
            ids: Arc::new(LeaseIds::new(own, clock.unix_ms())),
            timeout,
            ttl_min_s: shortest_ttl_s(settings.election),
        });
        let sender = forwarding::Sender {
            tickets,
            consensus: consensus.clone(),
            peers: peers.clone(),
            clock: clock.clone(),
        };
        let mut node = Node {
            members: Members::new(following, consensus.clone(), clock.clone(), terms(&settings)),
            quota: Quota::new(view.clone(), writer.clone(), own.0, settings.quota_bytes_max),
            reader: Reader::new(view.clone(), read_index.clone()),
            meters: settings.meters.clone(),
            peers,
            clock,
            consensus,
            view,
            writer,
            read_index,
            leases,
            watches,
            sweeper,
            tasks: JoinSet::new(),
        };
        node.tasks.spawn(sweeping);
        node.tasks.spawn(sender.run());
        node.work(settings);
        Ok(node)
    }

    /// Starts the tasks that need nothing but what the node is made of.
    fn work(&mut self, settings: Settings) {
        let steward =
            Steward { here: self.here(), leadership: self.consensus.leadership(), recipes: RECIPES };
        self.tasks.spawn(steward.run());
        let Node { consensus, view, writer, leases, watches, quota, members, peers, tasks, .. } = self;
        tasks.spawn(leases.clone().tell_voters());
        tasks.spawn(leases::count(leases.clone(), consensus.clone(), peers.clone()));
        tasks.spawn(members.clone().promote_wanted());
        tasks.spawn(members.clone().ask_for_standing());
        let compactor =
            Compactor { view: view.clone(), writer: writer.clone(), consensus: consensus.clone() };
        tasks.spawn(compactor.run(settings.retention));
        tasks.spawn(quota.clone().watch_over());
        tasks.spawn(watches.clone().tell_progress(settings.watch_progress_interval));
        let audit = Audit {
            view: view.clone(),
            writer: writer.clone(),
            consensus: consensus.clone(),
            peers: peers.clone(),
        };
        tasks.spawn(audit.run(settings.audit_interval));
        tasks.spawn(publish(writer.clone(), settings));
    }

    /// What this member answers the other members with.
    pub fn peer_routes(&self) -> Routes {
        let forwarding = forwarding::Service::new(forwarding::ServiceParts {
            peers: self.peers.clone(),
            consensus: self.consensus.clone(),
            writer: self.writer.clone(),
            read_index: self.read_index.clone(),
            leases: self.leases.clone(),
        });
        Routes::new(self.consensus.replication())
            .add_service(self.leases.witness())
            .add_service(audit::Service::new(self.view.clone(), self.peers.clone()))
            .add_service(forwarding.server(self.writer.request_bytes_max() + FORWARDED_BYTES_MAX))
            .add_service(members::reconfiguration(self.members.clone()))
            .add_service(members::joining(self.members.clone()))
    }

    /// This member as recipes see it.
    pub fn here(&self) -> Here {
        Here {
            view: self.view.clone(),
            reader: self.reader.clone(),
            writer: self.writer.clone(),
            leases: self.leases.clone(),
            watches: self.watches.clone(),
            quota: self.quota.clone(),
            leadership: self.consensus.leadership(),
            clock: self.clock.clone(),
        }
    }

    /// Waits until this member serves: somebody leads, all that was acknowledged before is applied here, so that what
    /// clients were told once does not go back, this member counts leases if it leads, and it knows its own name and
    /// addresses from the log.
    pub async fn ready(&self, member: MemberId) -> Result<(), StartError> {
        let leadership = self.consensus.leadership();
        let mut looked_ms = 0;
        while let Err(unavailable) = self.read_index.confirm().await {
            if let Some(failure) = self.consensus.failure() {
                return Err(StartError::new(failure));
            }
            tracing::warn!(?unavailable, "still waiting for a leader before serving");
        }
        loop {
            let now = *leadership.borrow();
            let published =
                self.view.machine().members().get(member.0).is_some_and(|own| !own.name.is_empty());
            let counts = !now.here || self.leases.counted().await.is_ok();
            if now.leader.is_some() && published && counts {
                return Ok(());
            }
            if let Some(failure) = self.consensus.failure() {
                return Err(StartError::new(failure));
            }
            tokio::time::sleep(READY_LOOK).await;
            looked_ms += READY_LOOK.as_millis();
            if looked_ms % 5_000 == 0 {
                tracing::warn!(leader = now.leader, published, counts, "still waiting to serve");
            }
        }
    }

    /// Ends all tasks, the consensus last; what was acknowledged is on disk already.
    pub async fn stop(mut self) {
        self.watches.stop();
        self.tasks.shutdown().await;
        self.consensus.stop().await;
        if let Err(fatal) = self.view.store().settled().await {
            tracing::warn!(%fatal, "the store did not take the last writes; the log has them");
        }
    }
}

fn options(settings: &Settings) -> raft::Options {
    raft::Options {
        member: settings.member.0,
        heartbeat_ms: settings.heartbeat.as_millis() as u64,
        election_ms: settings.election.as_millis() as u64,
        snapshot_entries: settings.snapshot_entries,
        kept_entries: settings.kept_entries,
        pre_vote: settings.pre_vote,
        record_bytes_max: settings.record_bytes_max,
        meters: settings.meters.clone(),
    }
}

fn limits(settings: &Settings) -> Limits {
    Limits {
        request_bytes_max: settings.request_bytes_max,
        under_way_max: UNDER_WAY_MAX,
        under_way_bytes_max: UNDER_WAY_BYTES_MAX,
        timeout: REQUEST_TIMEOUT + 2 * settings.election,
    }
}

fn terms(settings: &Settings) -> members::Terms {
    members::Terms {
        rules: settings.membership,
        token: settings.token.clone(),
        patience: settings.election,
        timeout: limits(settings).timeout,
    }
}

/// The shortest TTL that can be granted, seconds: three halves of the election timeout, as etcd has it.
fn shortest_ttl_s(election: Duration) -> i64 {
    (election * 3 / 2).as_millis().div_ceil(1_000) as i64
}

/// Tells the cluster this member's name and where clients reach it, once, at start.
async fn publish(writer: Writer, settings: Settings) {
    let publish = MemberPublish {
        id: settings.member.0,
        name: settings.name.clone(),
        client_urls: settings.client_urls.clone(),
    };
    while let Err(error) = writer.write_own(leases::command(Wish::MemberPublish(publish.clone()))).await {
        tracing::debug!(?error, "this member's addresses are not published yet");
        tokio::time::sleep(PUBLISH_RETRY).await;
    }
}

/// Why the node could not start: one line that says what to do.
#[derive(Debug)]
pub struct StartError(String);

impl StartError {
    fn new(error: impl std::fmt::Display) -> StartError {
        StartError(error.to_string())
    }
}

impl std::fmt::Display for StartError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for StartError {}
