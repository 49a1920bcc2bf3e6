//! A client that asks nobody: it is told again all that it was told so far, and then stops at its next question. So where a client stands
//! follows from what it was told, and a state of many clients is a store and what each was told. Nothing in it runs.
//!
//! What a client knows is what it was told since it last began anew: where its script says so ([`Gated::knows`]), and where a txn of its
//! own found that somebody was faster, for then the recipes look again and remember nothing. What it has achieved by txns before is
//! never forgotten. Who has come to its end knows nothing any more but what it tells of it.

use std::any::Any;
use std::collections::BTreeMap;
use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};

use prost::Message;
use tenure_proto::etcdserverpb::request_op::Request;
use tenure_proto::etcdserverpb::{RangeRequest, RangeResponse, TxnRequest, TxnResponse};
use tenure_recipes::{Change, Changes, Failure, Primitives, TimeLeft};

/// What a client is about to ask.
#[derive(Clone, Debug, PartialEq)]
pub enum Ask {
    Range(RangeRequest),
    Txn(TxnRequest),
    Grant(i64),
    KeepAlive(i64),
    Revoke(i64),
    TimeToLive(i64),
    /// What of this range has changed from this revision on; it is answered when something has.
    Next {
        key: Vec<u8>,
        range_end: Vec<u8>,
        from: i64,
    },
    /// Whether a session has ended; answered when one has.
    Bell,
}

/// What it was told.
#[derive(Clone, Debug)]
pub enum Answer {
    Range(Result<RangeResponse, Failure>),
    Txn(Result<TxnResponse, Failure>),
    Granted(Result<i64, Failure>),
    KeptAlive(Option<i64>),
    Revoked(bool),
    Left(Option<TimeLeft>),
    Change(Change),
    Rung,
}

/// What a client does, from the beginning, as often as one wants to see it.
pub type Script = Box<dyn Fn(Gated) -> Pin<Box<dyn Future<Output = Outcome>>>>;

/// What a script gave in the end, and the same in words.
#[derive(Clone)]
pub struct Outcome(pub Arc<dyn Any + Send + Sync>, pub String);

/// Where a client stands.
#[derive(Clone, Default)]
pub struct Standing {
    /// None: it has come to its end.
    pub asks: Option<Ask>,
    pub outcome: Option<Outcome>,
    pub knowledge: Knowledge,
    /// Its last call was a read.
    pub reading: bool,
    /// What it watches, each with the first revision that it was not told of.
    pub watches: BTreeMap<usize, (Vec<u8>, Vec<u8>, i64)>,
}

#[derive(Clone, Default)]
pub struct Knowledge {
    pub told: Vec<u8>,
    /// What of that it will not forget when somebody was faster.
    pub achieved: Vec<u8>,
    /// How often in a row somebody was faster.
    pub overtaken: u32,
}

/// The store as a client sees it.
#[derive(Clone)]
pub struct Gated(Arc<Mutex<Gate>>);

#[derive(Default)]
struct Gate {
    told: Vec<Answer>,
    at: usize,
    stands: Standing,
    /// Whoever waits for a change is seen to wait before it comes.
    waited: bool,
    watches_made: usize,
    forgetful: bool,
    /// What it knew when its script last began anew.
    known: Vec<u8>,
}

pub struct GatedWatching {
    client: Gated,
    number: usize,
}

/// Where the client stands after all this.
pub fn stand(script: &Script, told: Vec<Answer>, forgetful: bool) -> Standing {
    let client = Gated::told(told);
    client.gate().forgetful = forgetful;
    let mut future = script(client.clone());
    match client.go_on(&mut future) {
        Some(outcome) => Standing { outcome: Some(outcome), ..Standing::default() },
        None => client.gate().stands.clone(),
    }
}

/// Follows a client to its end, asking `answer` for it.
pub fn play<T, F: Future<Output = T> + 'static>(
    act: &impl Fn(Gated) -> F,
    mut answer: impl FnMut(&Ask) -> Answer,
) -> T {
    let client = Gated::told(Vec::new());
    let mut future: Pin<Box<dyn Future<Output = T>>> = Box::pin(act(client.clone()));
    loop {
        if let Some(value) = client.go_on(&mut future) {
            return value;
        }
        let ask = client.gate().stands.asks.take().expect("it waits for an answer");
        let answer = answer(&ask);
        client.gate().told.push(answer);
    }
}

impl Ask {
    /// Whether it changes nothing that anybody could see.
    pub fn reads(&self) -> bool {
        match self {
            Ask::Range(_) => true,
            Ask::Txn(txn) => !changes(txn),
            _ => false,
        }
    }

    /// A txn that is meant to change something.
    pub fn attempt(&self) -> Option<&TxnRequest> {
        match self {
            Ask::Txn(txn) if changes(txn) => Some(txn),
            _ => None,
        }
    }

    /// Whether it is answered by what others do.
    pub fn waits(&self) -> bool {
        matches!(self, Ask::Next { .. } | Ask::Bell)
    }

    pub fn bytes(&self) -> Vec<u8> {
        match self {
            Ask::Range(range) => range.encode_to_vec(),
            Ask::Txn(txn) => txn.encode_to_vec(),
            other => format!("{other:?}").into_bytes(),
        }
    }
}

fn changes(txn: &TxnRequest) -> bool {
    let mut operations = txn.success.iter().chain(&txn.failure);
    !operations.all(|operation| matches!(operation.request, Some(Request::RequestRange(_))))
}

impl Answer {
    pub fn bytes(&self) -> Vec<u8> {
        match self {
            Answer::Range(Ok(answer)) => answer.encode_to_vec(),
            Answer::Txn(Ok(answer)) => answer.encode_to_vec(),
            Answer::Change(change) => change_bytes(change),
            other => format!("{other:?}").into_bytes(),
        }
    }
}

pub fn change_bytes(change: &Change) -> Vec<u8> {
    let mut bytes = change.revision.to_string().into_bytes();
    change.events.iter().for_each(|event| add(&mut bytes, &event.encode_to_vec()));
    bytes
}

fn add(all: &mut Vec<u8>, more: &[u8]) {
    all.extend((more.len() as u32).to_be_bytes());
    all.extend(more);
}

impl Gate {
    fn answer(&mut self, ask: &Ask) -> Option<Answer> {
        if ask.waits() && !std::mem::replace(&mut self.waited, true) {
            return None;
        }
        let Some(answer) = self.told.get(self.at).cloned() else {
            self.stands.asks = Some(ask.clone());
            return None;
        };
        self.at += 1;
        self.waited = false;
        self.stands.asks = None;
        self.stands.reading = ask.reads();
        self.learn(ask, &answer);
        Some(answer)
    }

    fn learn(&mut self, ask: &Ask, answer: &Answer) {
        let Knowledge { told, achieved, overtaken } = &mut self.stands.knowledge;
        let (true, Answer::Txn(answer)) = (ask.attempt().is_some(), answer) else {
            return add(told, &answer.bytes());
        };
        match answer {
            Ok(done) if done.succeeded => {
                if self.forgetful {
                    achieved.clone_from(&self.known);
                    add(achieved, b"done");
                } else {
                    add(achieved, &ask.bytes());
                    add(achieved, &done.encode_to_vec());
                }
                *overtaken = 0;
                told.clone_from(achieved);
            }
            Ok(_) => {
                *overtaken += 1;
                told.clone_from(achieved);
                add(told, b"overtaken");
            }
            Err(failure) => {
                told.clone_from(achieved);
                add(told, failure.to_string().as_bytes());
            }
        }
    }
}

impl Gated {
    fn told(told: Vec<Answer>) -> Gated {
        Gated(Arc::new(Mutex::new(Gate { told, ..Gate::default() })))
    }

    fn gate(&self) -> MutexGuard<'_, Gate> {
        self.0.lock().unwrap()
    }

    /// To its end or its next question.
    fn go_on<T>(&self, future: &mut Pin<Box<dyn Future<Output = T>>>) -> Option<T> {
        for _ in 0..10_000 {
            if let Poll::Ready(value) = future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
                let gate = self.gate();
                assert!(gate.at == gate.told.len(), "a script does the same each time");
                return Some(value);
            }
            if self.gate().stands.asks.is_some() {
                return None;
            }
        }
        panic!("a script waits for something else than the store");
    }

    /// Its script begins anew: whatever it was told before matters no more but for this.
    pub fn knows(&self, what: &impl fmt::Debug) {
        let mut gate = self.gate();
        let known = format!("{what:?}").into_bytes();
        gate.known.clone_from(&known);
        gate.stands.knowledge = Knowledge { told: known.clone(), achieved: known, overtaken: 0 };
        gate.stands.reading = false;
    }

    /// Whether it is about to ask something, and not waiting for a change.
    pub fn is_asking(&self) -> bool {
        self.gate().stands.asks.as_ref().is_some_and(|ask| !ask.waits())
    }

    /// Waits until a session has ended; all ends that were not seen to yet are one.
    pub async fn rung(&self) {
        self.ask(Ask::Bell).await;
    }

    async fn ask(&self, ask: Ask) -> Answer {
        poll_fn(|_| self.gate().answer(&ask).map_or(Poll::Pending, Poll::Ready)).await
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

/// The answer is of the kind that was asked for.
macro_rules! answered {
    ($client:expr, $ask:expr, $kind:path) => {
        match $client.ask($ask).await {
            $kind(answer) => answer,
            other => panic!("another question's answer: {other:?}"),
        }
    };
}

impl Primitives for Gated {
    type Changes = GatedWatching;

    async fn txn(&self, txn: TxnRequest) -> Result<TxnResponse, Failure> {
        answered!(self, Ask::Txn(txn), Answer::Txn)
    }

    async fn range(&self, range: RangeRequest) -> Result<RangeResponse, Failure> {
        answered!(self, Ask::Range(range), Answer::Range)
    }

    /// A watch from a revision on tells the same whenever it is begun.
    async fn watch(&self, key: Vec<u8>, range_end: Vec<u8>, from: i64) -> Result<GatedWatching, Failure> {
        let mut gate = self.gate();
        let number = gate.watches_made;
        gate.watches_made += 1;
        gate.stands.watches.insert(number, (key, range_end, from));
        Ok(GatedWatching { client: self.clone(), number })
    }

    async fn grant(&self, lease: i64, _ttl_s: i64) -> Result<i64, Failure> {
        answered!(self, Ask::Grant(lease), Answer::Granted)
    }

    async fn keep_alive(&self, lease: i64) -> Result<Option<i64>, Failure> {
        Ok(answered!(self, Ask::KeepAlive(lease), Answer::KeptAlive))
    }

    async fn revoke(&self, lease: i64) -> Result<bool, Failure> {
        Ok(answered!(self, Ask::Revoke(lease), Answer::Revoked))
    }

    async fn time_to_live(&self, lease: i64) -> Result<Option<TimeLeft>, Failure> {
        Ok(answered!(self, Ask::TimeToLive(lease), Answer::Left))
    }
}

impl Changes for GatedWatching {
    async fn next(&mut self) -> Result<Change, Failure> {
        let (key, range_end, from) = self.client.gate().stands.watches[&self.number].clone();
        let change = answered!(self.client, Ask::Next { key, range_end, from }, Answer::Change);
        if let Some((_, _, from)) = self.client.gate().stands.watches.get_mut(&self.number) {
            *from = change.revision + 1;
        }
        Ok(change)
    }
}

impl Drop for GatedWatching {
    fn drop(&mut self) {
        if let Ok(mut gate) = self.client.0.lock() {
            gate.stands.watches.remove(&self.number);
        }
    }
}
