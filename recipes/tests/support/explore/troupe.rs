//! The clients of an exploration, each run once for all that it can come to know, and found again wherever it stands at the same place.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::{self, Debug};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::rc::Rc;

use super::client::{Answer, Ask, Outcome, Script, Standing, stand};
use super::print::Print;

/// What was found out about the clients, wherever they stood in any scene.
#[derive(Default)]
pub struct Troupe {
    pub scripts: Vec<Script>,
    forgetful: bool,
    /// Those who must come to an end.
    pub important: BTreeSet<usize>,
    /// Whose session each lease is.
    pub owners: BTreeMap<i64, usize>,
    /// Where a client stands behind an answer, by where it stood.
    behind: HashMap<(usize, u64), Rc<Client>>,
    /// By all that it knows.
    known: HashMap<u64, Rc<Client>>,
}

/// A client that was told this, and where it stands.
pub struct Client {
    pub number: usize,
    pub told: Vec<Answer>,
    pub stands: Standing,
    pub asks: Print,
    pub knows: Print,
    pub achieved: Print,
}

impl Troupe {
    pub fn new(forgetful: bool) -> Troupe {
        Troupe { forgetful, ..Troupe::default() }
    }

    pub fn client(&mut self, number: usize, told: Vec<Answer>) -> Rc<Client> {
        let stands = stand(&self.scripts[number], told.clone(), self.forgetful);
        let asked = stands.asks.as_ref().map(Ask::bytes).unwrap_or_default();
        let ended = stands.outcome.as_ref().map(|Outcome(_, words)| words.as_bytes().to_vec());
        let knows = ended.as_ref().unwrap_or(&stands.knowledge.told);
        let achieved = &stands.knowledge.achieved;
        let mut hasher = DefaultHasher::new();
        (number, &asked, knows, achieved, ended.is_some()).hash(&mut hasher);
        (stands.knowledge.overtaken, stands.reading, &stands.watches).hash(&mut hasher);
        // Who knows the same stands at the same place, whatever it was told before.
        let print = hasher.finish();
        if let Some(same) = self.known.get(&print) {
            return same.clone();
        }
        let (asks, knows, achieved) = (Print::of(&asked), Print::of(knows), Print::of(achieved));
        let client = Rc::new(Client { number, told, stands, asks, knows, achieved });
        self.known.insert(print, client.clone());
        client
    }

    pub fn behind(&mut self, before: &Rc<Client>, answer: Answer) -> Rc<Client> {
        let mut hasher = DefaultHasher::new();
        answer.bytes().hash(&mut hasher);
        let way = (Rc::as_ptr(before) as usize, hasher.finish());
        if let Some(client) = self.behind.get(&way) {
            return client.clone();
        }
        let client = self.client(before.number, before.told.iter().cloned().chain([answer]).collect());
        self.behind.insert(way, client.clone());
        client
    }
}

impl Client {
    pub fn asks(&self) -> Option<&Ask> {
        self.stands.asks.as_ref()
    }
}

impl Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.stands.asks)
    }
}
