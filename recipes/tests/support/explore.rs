//! Every interleaving of a few clients: each stops before every call to the store and goes on when it is let, and sessions end at any
//! moment between. A state that was seen before, by what is stored and by all that each client was told, is not looked at again, since
//! whatever follows from it is the same.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::future::poll_fn;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Mutex};
use std::task::{Poll, Waker};

use prost::Message;
use tenure_proto::etcdserverpb::request_op::Request;
use tenure_proto::etcdserverpb::{RangeRequest, RangeResponse, TxnRequest, TxnResponse};
use tenure_recipes::{Change, Changes, Failure, Primitives, TimeLeft};

use super::store::{Store, Watching};
use super::tasks::Tasks;

/// No path of a few clients is longer.
const STEPS_MAX: usize = 200;

/// What may happen next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Choice {
    /// This client's next call is done.
    Step(usize),
    /// The lease of this id ends.
    Expire(i64),
}

/// A store and clients under somebody's direction.
#[derive(Default)]
pub struct Scene {
    pub store: Store,
    tasks: Tasks,
    gates: Arc<Mutex<Gates>>,
    clients: usize,
    /// Leases that may end.
    pub mortal: Vec<i64>,
    /// How many of them may.
    pub deaths_max: usize,
    /// Reads that follow each other are one step. There are far fewer paths then, and none on which somebody changes what is half read.
    pub whole_looks: bool,
    deaths: usize,
    running: BTreeMap<usize, Box<dyn Fn() -> bool>>,
}

#[derive(Default)]
struct Gates {
    waiting: BTreeMap<usize, Waker>,
    let_through: Option<usize>,
    /// All that a client was told, as one number.
    told: BTreeMap<usize, u64>,
    /// Those whose last call was a read.
    reading: BTreeSet<usize>,
}

/// The store as one client sees it.
#[derive(Clone)]
pub struct Gated {
    store: Store,
    gates: Arc<Mutex<Gates>>,
    client: usize,
    whole_looks: bool,
}

pub struct GatedWatching {
    watching: Watching,
    client: Gated,
}

/// How much was looked at.
#[derive(Clone, Copy, Debug, Default)]
pub struct Explored {
    pub states: usize,
    pub ends: usize,
}

impl Scene {
    /// Takes in a client. `important`: it must come to an end on every path.
    pub fn client<T: 'static, F: Future<Output = T> + 'static>(
        &mut self,
        important: bool,
        act: impl FnOnce(Gated) -> F,
    ) {
        let client = self.clients;
        self.clients += 1;
        let gated = Gated {
            store: self.store.clone(),
            gates: self.gates.clone(),
            client,
            whole_looks: self.whole_looks,
        };
        let started = self.tasks.start(act(gated));
        if important {
            self.running.insert(client, Box::new(move || started.is_done()));
        }
        self.tasks.settle();
    }

    /// Those who must come to an end and have not.
    pub fn unfinished(&self) -> Vec<usize> {
        self.running.iter().filter(|(_, done)| !done()).map(|(client, _)| *client).collect()
    }

    pub fn choices(&self) -> Vec<Choice> {
        let steps = self.gates.lock().unwrap().waiting.keys().copied().map(Choice::Step).collect::<Vec<_>>();
        let deaths =
            self.mortal.iter().copied().map(Choice::Expire).filter(|_| self.deaths < self.deaths_max);
        // When nobody has anything to do any more, an end changes nothing that was not seen before.
        if steps.is_empty() && self.unfinished().is_empty() {
            Vec::new()
        } else {
            steps.into_iter().chain(deaths).collect()
        }
    }

    /// This client's next call is done, if it is about to make one.
    pub fn step(&mut self, client: usize) -> bool {
        let about_to = self.gates.lock().unwrap().waiting.contains_key(&client);
        if about_to {
            self.follow(Choice::Step(client), &|_, _| {});
        }
        about_to
    }

    fn follow(&mut self, choice: Choice, on_death: &dyn Fn(&mut Scene, i64)) {
        match choice {
            Choice::Step(client) => {
                let waker = {
                    let mut gates = self.gates.lock().unwrap();
                    gates.let_through = Some(client);
                    gates.waiting.remove(&client)
                };
                waker.expect("only who waits is let through").wake();
            }
            Choice::Expire(lease) => {
                self.deaths += 1;
                self.mortal.retain(|mortal| *mortal != lease);
                self.store.expire(lease);
                on_death(self, lease);
            }
        }
        self.tasks.settle();
    }

    fn fingerprint(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        for kv in self.store.keys(b"") {
            kv.encode_to_vec().hash(&mut hasher);
        }
        self.store.revision().hash(&mut hasher);
        self.mortal.hash(&mut hasher);
        let gates = self.gates.lock().unwrap();
        gates.told.hash(&mut hasher);
        gates.waiting.keys().collect::<Vec<_>>().hash(&mut hasher);
        hasher.finish()
    }
}

/// Follows every path from the scene that `begin` makes. `check` is called after each step, and with `true` when nothing can happen any
/// more; it panics if something is wrong, and is told the way there.
pub fn explore(
    begin: impl Fn() -> Scene,
    on_death: impl Fn(&mut Scene, i64),
    check: impl Fn(&Scene, bool, &[Choice]),
) -> Explored {
    let mut explored = Explored::default();
    let mut seen = HashSet::new();
    let mut left: Vec<Vec<Choice>> = vec![Vec::new()];
    while let Some(mut path) = left.pop() {
        let mut scene = begin();
        for choice in &path {
            scene.follow(*choice, &on_death);
        }
        loop {
            assert!(path.len() < STEPS_MAX, "this goes on for ever: {path:?}");
            check(&scene, false, &path);
            if !seen.insert(scene.fingerprint()) {
                break;
            }
            explored.states += 1;
            let choices = scene.choices();
            let Some((first, others)) = choices.split_first() else {
                explored.ends += 1;
                assert!(
                    scene.unfinished().is_empty(),
                    "{:?} wait for ever after {path:?}",
                    scene.unfinished()
                );
                check(&scene, true, &path);
                break;
            };
            for other in others {
                left.push([&path[..], &[*other]].concat());
            }
            path.push(*first);
            scene.follow(*first, &on_death);
        }
    }
    explored
}

/// Follows one path to its end, as `chance` has it: for more clients than all paths of could be followed. `chance` gives a number below
/// the one it is given.
pub fn wander(
    mut scene: Scene,
    on_death: impl Fn(&mut Scene, i64),
    check: impl Fn(&Scene, bool, &[Choice]),
    mut chance: impl FnMut(usize) -> usize,
) {
    let mut path = Vec::new();
    loop {
        check(&scene, false, &path);
        let choices = scene.choices();
        if choices.is_empty() {
            assert!(scene.unfinished().is_empty(), "{:?} wait for ever after {path:?}", scene.unfinished());
            return check(&scene, true, &path);
        }
        // Ends of sessions are rare, or nobody would come to anything.
        let steps = choices.iter().filter(|choice| matches!(choice, Choice::Step(_))).count();
        let all = if steps > 0 && chance(20) > 0 { steps } else { choices.len() };
        let choice = choices[chance(all)];
        path.push(choice);
        scene.follow(choice, &on_death);
    }
}

impl Gated {
    /// Waits to be let through.
    async fn pass(&self, reads: bool) {
        {
            let reading = &mut self.gates.lock().unwrap().reading;
            if !reads {
                reading.remove(&self.client);
            } else if !reading.insert(self.client) && self.whole_looks {
                return;
            }
        }
        poll_fn(|context| {
            let mut gates = self.gates.lock().unwrap();
            if gates.let_through == Some(self.client) {
                gates.let_through = None;
                return Poll::Ready(());
            }
            gates.waiting.insert(self.client, context.waker().clone());
            Poll::Pending
        })
        .await
    }

    fn told(&self, what: &impl Hash) {
        let mut gates = self.gates.lock().unwrap();
        let before = gates.told.entry(self.client).or_default();
        let mut hasher = DefaultHasher::new();
        before.hash(&mut hasher);
        what.hash(&mut hasher);
        *before = hasher.finish();
    }

    fn tell<M: Message>(&self, answer: Result<M, Failure>) -> Result<M, Failure> {
        self.told(&answer.as_ref().map(Message::encode_to_vec).map_err(Failure::to_string));
        answer
    }

    fn tell_plainly<T: std::fmt::Debug>(&self, answer: T) -> T {
        self.told(&format!("{answer:?}"));
        answer
    }
}

impl Primitives for Gated {
    type Changes = GatedWatching;

    async fn txn(&self, txn: TxnRequest) -> Result<TxnResponse, Failure> {
        let reads = txn.success.iter().chain(&txn.failure);
        let reads =
            reads.map(|operation| &operation.request).all(|it| matches!(it, Some(Request::RequestRange(_))));
        self.pass(reads).await;
        self.tell(self.store.txn(txn).await)
    }

    async fn range(&self, range: RangeRequest) -> Result<RangeResponse, Failure> {
        self.pass(true).await;
        self.tell(self.store.range(range).await)
    }

    async fn watch(&self, key: Vec<u8>, range_end: Vec<u8>, from: i64) -> Result<GatedWatching, Failure> {
        // A watch from a revision on tells the same whenever it is begun.
        Ok(GatedWatching { watching: self.store.watch(key, range_end, from).await?, client: self.clone() })
    }

    async fn grant(&self, lease: i64, ttl_s: i64) -> Result<i64, Failure> {
        self.pass(false).await;
        self.tell_plainly(self.store.grant(lease, ttl_s).await)
    }

    async fn keep_alive(&self, lease: i64) -> Result<Option<i64>, Failure> {
        self.pass(false).await;
        self.tell_plainly(self.store.keep_alive(lease).await)
    }

    async fn revoke(&self, lease: i64) -> Result<bool, Failure> {
        self.pass(false).await;
        self.tell_plainly(self.store.revoke(lease).await)
    }

    async fn time_to_live(&self, lease: i64) -> Result<Option<TimeLeft>, Failure> {
        self.pass(false).await;
        self.tell_plainly(self.store.time_to_live(lease).await)
    }
}

impl Changes for GatedWatching {
    async fn next(&mut self) -> Result<Change, Failure> {
        let change = self.watching.next().await;
        self.client.tell_plainly(change)
    }
}
