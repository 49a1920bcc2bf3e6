//! One member: its disk, which outlives it, and its lives, each the server's own `Node` on a runtime whose time moves only
//! when the world moves it. Knows how a member is started, moved on and ended in all the ways there are; not why.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tenure_disk::store::{Memory, Store, StoreOptions};
use tenure_disk::wal::{Wal, WalOptions, Workers};
use tenure_disk::{FakeDisk, Loss};
use tenured::clock::Clock;
use tenured::ids::{ClusterId, Dice, MemberId};
use tenured::metrics::Meters;
use tenured::net::Net;
use tenured::node::{Leases, Node, Pace, Reader, Retention, Rules, Settings, View, Watches, Writer};
use tenured::peers::{self, Peers};
use tenured::raft::Consensus;
use tokio::runtime::Runtime;
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::network::{Network, Station};
use crate::time::UNIX_EPOCH_OF_WORLD;

/// Half of what a server has by default, so that more happens in a seed's time.
pub const HEARTBEAT: Duration = Duration::from_millis(50);
pub const ELECTION: Duration = Duration::from_millis(500);
/// So few that snapshots are taken and sent within a seed's time.
const SNAPSHOT_ENTRIES: u64 = 150;
const KEPT_ENTRIES: u64 = 40;
/// What a well disk takes for a batch, milliseconds at the most.
pub const DISK_MS: u64 = 3;

/// What all members are told of the cluster.
#[derive(Clone)]
pub struct Charter {
    pub cluster: ClusterId,
    pub founders: BTreeMap<u64, Vec<String>>,
}

impl Charter {
    pub fn new(members: usize) -> Charter {
        let urls = |member| vec![format!("http://{}", Network::address(member))];
        let founders: BTreeMap<u64, Vec<String>> =
            (0..members).map(|member| (member_id(member).0, urls(member))).collect();
        let ids: Vec<MemberId> = founders.keys().map(|id| MemberId(*id)).collect();
        Charter { cluster: ClusterId::of(&ids), founders }
    }
}

/// Readable in a report: member 0 is a1, member 1 a2.
pub fn member_id(member: usize) -> MemberId {
    MemberId(0xa1 + member as u64)
}

pub struct Member {
    pub index: usize,
    charter: Charter,
    pub disk: FakeDisk,
    memory: Memory,
    station: Station,
    network: Network,
    /// How fast its clock goes, in millionths of the world's.
    pub rate_ppm: u64,
    pub life: Option<Life>,
    /// How often it was started.
    pub lives: u64,
}

/// From a start to its end.
pub struct Life {
    runtime: Runtime,
    base: Instant,
    began_ms: u64,
    /// How far its own clock is, milliseconds.
    lived_ms: u64,
    hall: Arc<Mutex<Hall>>,
    stop: Option<oneshot::Sender<()>>,
    disk_ms: Arc<AtomicU64>,
    /// It stands still until then, by the world's time.
    pub frozen_until_ms: u64,
}

/// Where a life shows what it has to show.
#[derive(Default)]
struct Hall {
    wal: Option<Wal>,
    desk: Option<Desk>,
    serving: bool,
    ended: Option<Result<(), String>>,
}

/// What clients may use of a member, and what the witness looks at.
#[derive(Clone)]
pub struct Desk {
    pub view: Arc<View>,
    pub writer: Writer,
    pub reader: Reader,
    pub leases: Leases,
    pub watches: Watches,
    pub consensus: Consensus,
}

/// How a life ends before its time.
#[derive(Clone, Copy, Debug)]
pub enum Death {
    /// The process is killed: what it wrote is with the kernel, and its connections are closed.
    Killed,
    /// The power goes: of what was not synced some is lost, and nobody is told.
    PowerCut { seed: u64 },
}

impl Member {
    pub fn new(index: usize, charter: Charter, network: &Network, rate_ppm: u64) -> Member {
        Member {
            index,
            charter,
            disk: FakeDisk::default(),
            memory: Memory::default(),
            station: network.station(index),
            network: network.clone(),
            rate_ppm,
            life: None,
            lives: 0,
        }
    }

    pub fn start(&mut self, now_ms: u64, mut dice: Dice) {
        self.network.power(self.index, true);
        self.lives += 1;
        let runtime = runtime(&mut dice);
        let base = runtime.block_on(async { Instant::now() });
        let hall = Arc::new(Mutex::new(Hall::default()));
        let (stop, stopped) = oneshot::channel();
        let disk_ms = Arc::new(AtomicU64::new(DISK_MS));
        let life = Living {
            index: self.index,
            charter: self.charter.clone(),
            disk: self.disk.clone(),
            memory: self.memory.clone(),
            net: Arc::new(self.station.clone()),
            clock: Arc::new(LocalClock { base, unix_ms: UNIX_EPOCH_OF_WORLD.as_millis() as u64 + now_ms }),
            hall: hall.clone(),
            disk_ms: disk_ms.clone(),
            dice,
        };
        runtime.spawn(async move {
            let (hall, outcome) = (life.hall.clone(), life.run(stopped).await);
            hall.lock().ended = Some(outcome);
        });
        self.life = Some(Life {
            runtime,
            base,
            began_ms: now_ms,
            lived_ms: 0,
            hall,
            stop: Some(stop),
            disk_ms,
            frozen_until_ms: 0,
        });
    }

    /// Lets it live up to this moment of the world.
    pub fn step(&mut self, now_ms: u64) {
        let rate_ppm = self.rate_ppm;
        let Some(life) = &mut self.life else { return };
        if now_ms < life.frozen_until_ms {
            return;
        }
        let until_ms = (now_ms - life.began_ms) * rate_ppm / 1_000_000;
        if until_ms <= life.lived_ms {
            return;
        }
        let target = life.base + Duration::from_millis(until_ms);
        let missed_ms = until_ms - life.lived_ms;
        life.runtime.block_on(async {
            if life.frozen_until_ms > 0 {
                // Whoever slept wakes to a clock that jumped.
                tokio::time::advance(Duration::from_millis(missed_ms)).await;
            }
            tokio::time::sleep_until(target).await;
        });
        life.frozen_until_ms = 0;
        life.lived_ms = until_ms;
    }

    /// Ends its life at once. Of writes on their way to the disk, those that were not synced suffer what the death brings.
    pub fn die(&mut self, death: Death) {
        let Some(life) = self.life.take() else { return };
        match death {
            Death::Killed => {
                self.disk.cut_power(Loss::Nothing);
                self.memory.cut_power(usize::MAX);
                self.network.hang_up(self.index);
                drop(life);
                self.network.power(self.index, true);
            }
            Death::PowerCut { seed } => {
                let mut dice = Dice::seeded(seed);
                let loss = match dice.below(3) {
                    0 => Loss::Everything,
                    1 => Loss::Pages(seed),
                    _ => Loss::Sectors(seed),
                };
                self.disk.cut_power(loss);
                self.memory.cut_power(dice.below(self.memory.unsynced() as u64 + 1) as usize);
                self.network.power(self.index, false);
                drop(life);
            }
        }
    }

    /// Asks it to stop in good order; [`Member::ended`] says when it has.
    pub fn stop(&mut self) {
        if let Some(stop) = self.life.as_mut().and_then(|life| life.stop.take()) {
            // An error means the same: it has ended.
            let _ = stop.send(());
        }
    }

    /// How its life ended by itself, if it did.
    pub fn ended(&self) -> Option<Result<(), String>> {
        self.life.as_ref()?.hall.lock().ended.clone()
    }

    pub fn serving(&self) -> bool {
        self.life.as_ref().is_some_and(|life| life.hall.lock().serving)
    }

    /// Whether it was asked to stop.
    pub fn stopping(&self) -> bool {
        self.life.as_ref().is_some_and(|life| life.stop.is_none())
    }

    /// From the moment it takes part, be it before it serves.
    pub fn desk(&self) -> Option<Desk> {
        self.life.as_ref()?.hall.lock().desk.clone()
    }

    pub fn wal(&self) -> Option<Wal> {
        self.life.as_ref()?.hall.lock().wal.clone()
    }

    /// Gives a task to a living member: it goes on as far as that member does, and ends with it.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        if let Some(life) = &self.life {
            life.runtime.spawn(task);
        }
    }

    pub fn slow_disk(&self, most_ms: u64) {
        if let Some(life) = &self.life {
            life.disk_ms.store(most_ms, Ordering::Relaxed);
        }
    }
}

/// A runtime whose time stands still between steps. Whom it wakes first of those who wait for the same thing is drawn by
/// dice of its own, which only a build with `--cfg tokio_unstable` lets anybody load; `cargo sim` makes such builds.
fn runtime(dice: &mut Dice) -> Runtime {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_time().start_paused(true);
    let seed = dice.number();
    #[cfg(tokio_unstable)]
    builder.rng_seed(tokio::runtime::RngSeed::from_bytes(&seed.to_be_bytes()));
    let _ = seed;
    builder.build().expect("a runtime without drivers starts")
}

/// Time as this member has it: its runtime's.
struct LocalClock {
    base: Instant,
    unix_ms: u64,
}

impl Clock for LocalClock {
    fn now_ms(&self) -> u64 {
        self.base.elapsed().as_millis() as u64
    }

    fn unix_ms(&self) -> u64 {
        self.unix_ms + self.now_ms()
    }
}

/// The task that is a member's life.
struct Living {
    index: usize,
    charter: Charter,
    disk: FakeDisk,
    memory: Memory,
    net: Arc<dyn Net>,
    clock: Arc<dyn Clock>,
    hall: Arc<Mutex<Hall>>,
    disk_ms: Arc<AtomicU64>,
    dice: Dice,
}

impl Living {
    async fn run(self, stopped: oneshot::Receiver<()>) -> Result<(), String> {
        let Living { index, charter, disk, memory, net, clock, hall, disk_ms, mut dice } = self;
        let first_ticket = dice.number();
        let wal =
            Wal::open(Arc::new(disk), Path::new("/wal"), log_options()).map_err(|error| error.to_string())?;
        hall.lock().wal = Some(wal.clone());
        tokio::spawn(turn_disk(wal.clone(), disk_ms, dice));
        let store = Store::in_memory(&memory, StoreOptions::default());
        let own = member_id(index);
        let peers = Peers::new(charter.cluster, own, net.clone(), ELECTION);
        let node = Node::start(settings(index, &charter, first_ticket), clock, peers, wal, store);
        let node = node.await.map_err(|error| error.to_string())?;
        hall.lock().desk = Some(desk(&node));

        let door = net.listen(Network::address(index)).await.map_err(|error| error.to_string())?;
        let (close, closing) = oneshot::channel::<()>();
        let serving = tokio::spawn(peers::serve(door, node.peer_routes(), node.peers.clone(), async {
            // An error means the same: the one who would tell is gone.
            let _ = closing.await;
        }));
        let mut stopped = stopped;
        tokio::select! {
            biased;
            // An error means the same: nobody is left to let it live.
            _ = &mut stopped => {}
            ready = node.ready(own) => {
                ready.map_err(|error| error.to_string())?;
                hall.lock().serving = true;
                let _ = stopped.await;
            }
        }
        hall.lock().serving = false;
        drop(close);
        serving.abort();
        node.stop().await;
        Ok(())
    }
}

fn desk(node: &Node) -> Desk {
    Desk {
        view: node.view.clone(),
        writer: node.writer.clone(),
        reader: node.reader.clone(),
        leases: node.leases.clone(),
        watches: node.watches.clone(),
        consensus: node.consensus.clone(),
    }
}

/// The disk takes its time for what is queued: as the log's own thread does in a server.
async fn turn_disk(wal: Wal, most_ms: Arc<AtomicU64>, mut dice: Dice) {
    loop {
        let took_ms = dice.below(most_ms.load(Ordering::Relaxed) + 1);
        tokio::time::sleep(Duration::from_millis(took_ms)).await;
        wal.work();
    }
}

/// Small files, so that many are begun, purged and used again.
fn log_options() -> WalOptions {
    WalOptions {
        segment_bytes: 32 << 10,
        first_segment_bytes: 8 << 10,
        tail_bytes_max: 64 << 10,
        workers: Workers::Hand,
        ..WalOptions::default()
    }
}

fn settings(index: usize, charter: &Charter, first_ticket: u64) -> Settings {
    Settings {
        member: member_id(index),
        name: format!("m{}", index + 1),
        client_urls: vec![format!("http://10.0.0.{}:2379", index + 1)],
        founders: charter.founders.clone(),
        heartbeat: HEARTBEAT,
        election: ELECTION,
        snapshot_entries: SNAPSHOT_ENTRIES,
        kept_entries: KEPT_ENTRIES,
        pre_vote: true,
        sweep: Pace { keys_at_once: 16, rest: Duration::from_millis(10) },
        // Most records come from the store, as in a large cluster.
        record_bytes_max: 512,
        request_bytes_max: 1 << 20,
        quota_bytes_max: None,
        retention: Retention::Everything,
        watch_progress_interval: Duration::from_secs(2),
        first_ticket,
        meters: Meters::unread(),
        // The witness compares more.
        audit_interval: Duration::ZERO,
        token: "simulated".into(),
        membership: Rules { strict: true, learners_max: 1 },
    }
}
