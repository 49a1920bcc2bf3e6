//! Every interleaving of a few clients: each stops before every call to the store and goes on when it is let, and sessions end at any
//! moment between. A state that was seen before is not looked at again, since whatever follows from it is the same. It is: what is
//! stored, which sessions may still end, and of each client what it is about to ask and what it knows.
//!
//! What a client knows is what it was told since it last began anew: where its script says so ([`Gated::knows`]), and where a txn of its
//! own found that somebody was faster, for then the recipes look again and remember nothing. What it has achieved by txns before
//! is never forgotten. Who has come to its end knows nothing any more, and its session's end is nobody's concern. And of who is about
//! to try a txn that compares a revision that has passed, all that matters is that it will be overtaken.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fmt;
use std::future::poll_fn;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Mutex};
use std::task::{Poll, Waker};

use prost::Message;
use tenure_proto::etcdserverpb::compare::{CompareResult, TargetUnion};
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
    /// How often somebody was faster is part of what a client knows, because it goes by that.
    pub counts_tries: bool,
    /// Reads that follow each other are one step. There are far fewer paths then, and none on which somebody changes what is half read.
    pub whole_looks: bool,
    deaths: usize,
    /// Whether it has come to its end, for each client.
    ended: Vec<Box<dyn Fn() -> bool>>,
    /// Those who must.
    important: BTreeSet<usize>,
    /// Whose session each lease is.
    owners: BTreeMap<i64, usize>,
    bell: Bell,
}

/// Calls whoever looks after things when a session has ended, once for all ends that were not seen to yet.
#[derive(Clone, Default)]
pub struct Bell(Arc<Mutex<(bool, Option<Waker>)>>);

#[derive(Default)]
struct Gates {
    waiting: BTreeMap<usize, (Waker, Asks)>,
    let_through: Option<usize>,
    /// All that a client knows, as one number.
    told: BTreeMap<usize, u64>,
    /// What of that it will not forget when somebody was faster.
    achieved: BTreeMap<usize, u64>,
    /// How often in a row somebody was faster.
    overtaken: BTreeMap<usize, u32>,
    /// Those whose last call was a read.
    reading: BTreeSet<usize>,
}

/// What a client is about to ask.
#[derive(Clone)]
enum Asks {
    /// As one number.
    Question(u64),
    Txn(TxnRequest),
}

/// The store as one client sees it.
#[derive(Clone)]
pub struct Gated {
    store: Store,
    gates: Arc<Mutex<Gates>>,
    client: usize,
    counts_tries: bool,
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
            counts_tries: self.counts_tries,
            whole_looks: self.whole_looks,
        };
        let started = self.tasks.start(act(gated));
        self.ended.push(Box::new(move || started.is_done()));
        if important {
            self.important.insert(client);
        }
        self.tasks.settle();
    }

    /// Takes in a client that is over and done with when this session has ended or the client has.
    pub fn client_of<T: 'static, F: Future<Output = T> + 'static>(
        &mut self,
        session: i64,
        act: impl FnOnce(Gated) -> F,
    ) {
        self.mortal.push(session);
        self.owners.insert(session, self.clients);
        self.client(true, act);
    }

    /// Takes in somebody who looks after things whenever a session has ended, as a server's steward does, and lets all ends be told to it.
    pub fn steward<F: Future<Output = ()> + 'static>(&mut self, act: impl Fn(Gated) -> F + 'static) {
        let bell = self.bell.clone();
        self.client(false, move |store| async move {
            loop {
                store.knows(&"nothing");
                bell.rung().await;
                act(store.clone()).await;
            }
        });
    }

    /// Those who must come to an end and have not.
    pub fn unfinished(&self) -> Vec<usize> {
        self.important.iter().copied().filter(|client| !self.ended[*client]()).collect()
    }

    /// Sessions that may end and whose end somebody may notice.
    fn mortal(&self) -> impl Iterator<Item = i64> {
        let concerns = |lease: &i64| {
            let over = self.owners.get(lease).is_some_and(|client| self.ended[*client]());
            !over || self.store.keys(b"").iter().any(|kv| kv.lease == *lease)
        };
        self.mortal.iter().copied().filter(move |lease| concerns(lease))
    }

    /// Of the choices those that must be followed so that every order was seen. What will be overtaken whenever it is tried, and changes
    /// nothing, may as well be tried at once.
    fn choices_that_matter(&self) -> Vec<Choice> {
        let passed = self.gates.lock().unwrap().waiting.iter().find_map(|(client, (_, asks))| match asks {
            Asks::Txn(txn) if changes(txn) && self.has_passed(txn) => Some(*client),
            Asks::Txn(_) | Asks::Question(_) => None,
        });
        passed.map_or_else(|| self.choices(), |client| vec![Choice::Step(client)])
    }

    pub fn choices(&self) -> Vec<Choice> {
        let steps = self.gates.lock().unwrap().waiting.keys().copied().map(Choice::Step).collect::<Vec<_>>();
        let deaths = self.mortal().map(Choice::Expire).filter(|_| self.deaths < self.deaths_max);
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
                waker.expect("only who waits is let through").0.wake();
            }
            Choice::Expire(lease) => {
                self.deaths += 1;
                self.mortal.retain(|mortal| *mortal != lease);
                self.store.expire(lease);
                self.bell.ring();
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
        if self.deaths < self.deaths_max {
            (self.mortal().collect::<Vec<_>>(), self.deaths_max - self.deaths).hash(&mut hasher);
        }
        self.bell.0.lock().unwrap().0.hash(&mut hasher);
        let gates = self.gates.lock().unwrap();
        for client in (0..self.clients).filter(|client| !self.ended[*client]()) {
            (client, gates.achieved.get(&client), gates.overtaken.get(&client)).hash(&mut hasher);
            match gates.waiting.get(&client) {
                Some((_, Asks::Txn(txn))) if self.has_passed(txn) => "passed".hash(&mut hasher),
                Some((_, Asks::Txn(txn))) if changes(txn) => txn.encode_to_vec().hash(&mut hasher),
                Some((_, Asks::Txn(txn))) => (gates.told.get(&client), txn.encode_to_vec()).hash(&mut hasher),
                Some((_, Asks::Question(question))) => (gates.told.get(&client), question).hash(&mut hasher),
                None => gates.told.get(&client).hash(&mut hasher),
            }
        }
        hasher.finish()
    }
}

impl Scene {
    /// Whether it compares a revision of a key that the key will never have again.
    fn has_passed(&self, txn: &TxnRequest) -> bool {
        let kvs = self.store.keys(b"");
        txn.compare.iter().any(|compare| {
            let kv = kvs.iter().find(|kv| kv.key == compare.key);
            let (asked, now) = match compare.target_union {
                Some(TargetUnion::ModRevision(asked)) => (asked, kv.map(|kv| kv.mod_revision)),
                Some(TargetUnion::CreateRevision(asked)) => (asked, kv.map(|kv| kv.create_revision)),
                _ => return false,
            };
            compare.result() == CompareResult::Equal
                && compare.range_end.is_empty()
                && asked != 0
                && now != Some(asked)
        })
    }
}

fn changes(txn: &TxnRequest) -> bool {
    let mut operations = txn.success.iter().chain(&txn.failure);
    !operations.all(|operation| matches!(operation.request, Some(Request::RequestRange(_))))
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
            let choices = scene.choices_that_matter();
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

impl Bell {
    fn ring(&self) {
        let mut bell = self.0.lock().unwrap();
        bell.0 = true;
        if let Some(waker) = bell.1.take() {
            waker.wake();
        }
    }

    async fn rung(&self) {
        poll_fn(|context| {
            let mut bell = self.0.lock().unwrap();
            if std::mem::take(&mut bell.0) {
                return Poll::Ready(());
            }
            bell.1 = Some(context.waker().clone());
            Poll::Pending
        })
        .await;
    }
}

impl Gated {
    /// Its script begins anew: whatever it was told before matters no more but for this.
    pub fn knows(&self, what: &impl std::fmt::Debug) {
        let known = number(&format!("{what:?}"));
        let mut gates = self.gates.lock().unwrap();
        gates.told.insert(self.client, known);
        gates.achieved.insert(self.client, known);
        gates.overtaken.remove(&self.client);
        gates.reading.remove(&self.client);
    }

    /// Whether it is about to ask something, and not waiting for a change.
    pub fn is_asking(&self) -> bool {
        self.gates.lock().unwrap().waiting.contains_key(&self.client)
    }

    /// Waits to be let through.
    async fn pass(&self, reads: bool, asks: Asks) {
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
            gates.waiting.insert(self.client, (context.waker().clone(), asks.clone()));
            Poll::Pending
        })
        .await
    }

    fn told(&self, what: &impl Hash) {
        let mut gates = self.gates.lock().unwrap();
        let before = gates.told.entry(self.client).or_default();
        *before = number(&(*before, what));
    }

    /// A txn that changes something was answered.
    fn tried(&self, txn: &TxnRequest, answer: &Result<TxnResponse, Failure>) {
        let mut gates = self.gates.lock().unwrap();
        let before = gates.achieved.get(&self.client).copied().unwrap_or_default();
        match answer {
            Ok(answer) if answer.succeeded => {
                let done = number(&(before, txn.encode_to_vec(), answer.encode_to_vec()));
                gates.achieved.insert(self.client, done);
                gates.told.insert(self.client, done);
                gates.overtaken.remove(&self.client);
            }
            Ok(_) => {
                if self.counts_tries {
                    *gates.overtaken.entry(self.client).or_default() += 1;
                }
                let known = number(&(before, "overtaken"));
                gates.told.insert(self.client, known);
            }
            Err(failure) => {
                gates.told.insert(self.client, number(&(before, failure.to_string())));
            }
        }
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

/// Says nothing of it: what a client knows is told apart by what else it holds.
impl fmt::Debug for Gated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Gated")
    }
}

impl fmt::Debug for GatedWatching {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("GatedWatching")
    }
}

impl Primitives for Gated {
    type Changes = GatedWatching;

    async fn txn(&self, txn: TxnRequest) -> Result<TxnResponse, Failure> {
        let reads = !changes(&txn);
        self.pass(reads, Asks::Txn(txn.clone())).await;
        let answer = self.store.txn(txn.clone()).await;
        if reads {
            return self.tell(answer);
        }
        self.tried(&txn, &answer);
        answer
    }

    async fn range(&self, range: RangeRequest) -> Result<RangeResponse, Failure> {
        self.pass(true, Asks::Question(number(&range.encode_to_vec()))).await;
        self.tell(self.store.range(range).await)
    }

    async fn watch(&self, key: Vec<u8>, range_end: Vec<u8>, from: i64) -> Result<GatedWatching, Failure> {
        // A watch from a revision on tells the same whenever it is begun.
        Ok(GatedWatching { watching: self.store.watch(key, range_end, from).await?, client: self.clone() })
    }

    async fn grant(&self, lease: i64, ttl_s: i64) -> Result<i64, Failure> {
        self.pass(false, Asks::Question(number(&("grant", lease)))).await;
        self.tell_plainly(self.store.grant(lease, ttl_s).await)
    }

    async fn keep_alive(&self, lease: i64) -> Result<Option<i64>, Failure> {
        self.pass(false, Asks::Question(number(&("keep_alive", lease)))).await;
        self.tell_plainly(self.store.keep_alive(lease).await)
    }

    async fn revoke(&self, lease: i64) -> Result<bool, Failure> {
        self.pass(false, Asks::Question(number(&("revoke", lease)))).await;
        self.tell_plainly(self.store.revoke(lease).await)
    }

    async fn time_to_live(&self, lease: i64) -> Result<Option<TimeLeft>, Failure> {
        self.pass(false, Asks::Question(number(&("time_to_live", lease)))).await;
        self.tell_plainly(self.store.time_to_live(lease).await)
    }
}

impl Changes for GatedWatching {
    async fn next(&mut self) -> Result<Change, Failure> {
        let change = self.watching.next().await;
        self.client.gates.lock().unwrap().reading.remove(&self.client.client);
        self.client.tell_plainly(change)
    }
}

fn number(what: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    what.hash(&mut hasher);
    hasher.finish()
}
