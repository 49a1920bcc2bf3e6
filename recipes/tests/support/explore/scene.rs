//! A store and clients under somebody's direction: what may happen next, and the scene behind it. Scenes are values, so that from each of them one can
//! go on in every way.

use std::cell::RefCell;
use std::fmt::Debug;
use std::rc::Rc;
use std::sync::Arc;

use tenure_proto::etcdserverpb::TxnRequest;
use tenure_proto::etcdserverpb::compare::{CompareResult, TargetUnion};
use tenure_proto::mvccpb::KeyValue;

use super::client::{Answer, Ask, Gated, Outcome, Script, change_bytes, play};
use super::print::{Portrait, Print};
use super::shelf::Shelf;
use super::story::{Deed, Story};
use super::troupe::{Client, Troupe};

/// What may happen next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Choice {
    /// This client's next call is done.
    Step(usize),
    /// The lease of this id ends.
    Expire(i64),
}

#[derive(Clone)]
pub struct Scene {
    pub store: Shelf,
    clients: Vec<Rc<Client>>,
    /// Leases that may end.
    pub mortal: Vec<i64>,
    deaths: usize,
    /// A session has ended, and whoever looks after things was not told yet.
    rung: bool,
    /// All that was asked or ended on the way here.
    pub story: Story,
    troupe: Rc<RefCell<Troupe>>,
    rules: Rc<Rules>,
}

/// How a scene is played.
#[derive(Clone, Default)]
pub struct Rules {
    /// How many of the mortal leases may end.
    pub deaths_max: usize,
    /// Reads that follow each other are one step. There are far fewer paths then, and none on which somebody changes what is half read.
    pub whole_looks: bool,
    /// If a call goes by how often in a row others were faster: from how many on. That few are not to be reached.
    pub tries_max: Option<u32>,
    pub forgotten: Option<Forgotten>,
    /// None: all.
    pub minded: Option<Minded>,
    /// Of what a txn achieved, clients remember no more than that it did.
    pub forgetful: bool,
    pub planted: Option<Planted>,
}

/// Whether nobody will look at this key any more, or go by it, given who (by number) has come to an end.
pub type Forgotten = fn(&KeyValue, &dyn Fn(usize) -> bool) -> bool;

/// Whether a change of this key matters to a client (by number) that was not told it yet.
pub type Minded = fn(&KeyValue, usize) -> bool;
/// A mistake: what the store answers instead.
pub type Planted = fn(&mut Shelf, &Ask) -> Option<Answer>;

impl Scene {
    pub fn new(rules: Rules) -> Scene {
        Scene {
            store: Shelf::default(),
            clients: Vec::new(),
            mortal: Vec::new(),
            deaths: 0,
            rung: false,
            story: Story::default(),
            troupe: Rc::new(RefCell::new(Troupe::new(rules.forgetful))),
            rules: Rc::new(rules),
        }
    }

    /// Takes in a client. `important`: it must come to an end on every path.
    pub fn client<T: Debug + Send + Sync + 'static, F: Future<Output = T> + 'static>(
        &mut self,
        important: bool,
        act: impl Fn(Gated) -> F + 'static,
    ) {
        let script: Script = Box::new(move |store| {
            let acting = act(store);
            Box::pin(async move {
                let value = acting.await;
                let words = format!("{value:?}");
                Outcome(Arc::new(value), words)
            })
        });
        let number = self.clients.len();
        let client = {
            let mut troupe = self.troupe.borrow_mut();
            // Where a scene took another client in before, this one is in its place.
            troupe.scripts.truncate(number);
            troupe.scripts.push(script);
            if important {
                troupe.important.insert(number);
            }
            troupe.client(number, Vec::new())
        };
        self.clients.push(client);
        self.settle();
    }

    /// Takes in a client that is over and done with when this session has ended or the client has.
    pub fn client_of<T: Debug + Send + Sync + 'static, F: Future<Output = T> + 'static>(
        &mut self,
        session: i64,
        act: impl Fn(Gated) -> F + 'static,
    ) {
        self.open(session);
        self.troupe.borrow_mut().owners.insert(session, self.clients.len());
        self.client(true, act);
    }

    /// Opens a session that may end.
    pub fn open(&mut self, session: i64) {
        self.store.answer(&Ask::Grant(session));
        self.story.add(Deed::Prepared(Ask::Grant(session)));
        self.mortal.push(session);
    }

    /// What was done before anybody came.
    pub fn prepare<T: 'static, F: Future<Output = T> + 'static>(&mut self, act: impl Fn(Gated) -> F) -> T {
        play(&act, |ask| {
            self.story.add(Deed::Prepared(ask.clone()));
            self.store.answer(ask).expect("nobody else will change anything")
        })
    }

    /// Takes in somebody who looks after things whenever a session has ended, as a server's steward does, and lets all ends be told to it.
    pub fn steward<F: Future<Output = ()> + 'static>(&mut self, act: impl Fn(Gated) -> F + 'static) {
        let act = Rc::new(act);
        self.client(false, move |store| {
            let act = act.clone();
            async move {
                loop {
                    store.knows(&"nothing");
                    store.rung().await;
                    act(store.clone()).await;
                }
            }
        });
    }

    /// Those who must come to an end and have not.
    pub fn unfinished(&self) -> Vec<usize> {
        let troupe = self.troupe.borrow();
        troupe.important.iter().copied().filter(|client| !self.has_ended(*client)).collect()
    }

    /// What a client that has come to its end gave.
    pub fn outcome<T: Clone + 'static>(&self, client: usize) -> Option<T> {
        let Outcome(value, _) = self.clients[client].stands.outcome.as_ref()?;
        value.downcast_ref::<T>().cloned()
    }

    pub fn choices(&self) -> Vec<Choice> {
        let steps = self.asking().map(|(client, _)| Choice::Step(client)).collect::<Vec<_>>();
        // When nobody has anything to do any more, an end changes nothing that was not seen before.
        if steps.is_empty() && self.unfinished().is_empty() {
            return steps;
        }
        let may_die = self.deaths < self.rules.deaths_max;
        let deaths = self.mortal().filter(|_| may_die).map(Choice::Expire).collect::<Vec<_>>();
        steps.into_iter().chain(deaths).collect()
    }

    /// Of the choices those that must be followed so that every order was seen. What will be overtaken whenever it is tried, and changes
    /// nothing, may as well be tried at once.
    pub fn choices_that_matter(&self) -> Vec<Choice> {
        let passed = |ask: &Ask| ask.attempt().is_some_and(|txn| self.has_passed(txn));
        let passed = self.asking().find(|(_, ask)| passed(ask));
        passed.map_or_else(|| self.choices(), |(client, _)| vec![Choice::Step(client)])
    }

    /// Nobody has anything to do, and somebody should: its turn will not come by itself.
    pub fn is_stuck(&self) -> bool {
        self.asking().next().is_none() && !self.unfinished().is_empty()
    }

    /// This client's next call is done, if it is about to make one.
    pub fn step(&mut self, client: usize) -> bool {
        let about_to = self.asking().any(|(asking, _)| asking == client);
        if about_to {
            self.follow(Choice::Step(client));
        }
        about_to
    }

    pub fn after(&self, choice: Choice) -> Scene {
        let mut scene = self.clone();
        scene.follow(choice);
        scene
    }

    pub fn follow(&mut self, choice: Choice) {
        match choice {
            Choice::Step(client) => loop {
                let before = self.clients[client].clone();
                let ask = before.stands.asks.as_ref().expect("only who asks is answered");
                self.story.add(Deed::Asked(client, before.clone()));
                let answer = match self.rules.planted {
                    Some(planted) => planted(&mut self.store, ask),
                    None => self.store.answer(ask),
                };
                self.tell(client, answer.expect("only who waits for others is not answered at once"));
                self.settle();
                let stands = &self.clients[client].stands;
                let reads_on = stands.reading && stands.asks.as_ref().is_some_and(Ask::reads);
                if !(self.rules.whole_looks && reads_on) {
                    break;
                }
            },
            Choice::Expire(lease) => {
                self.deaths += 1;
                self.mortal.retain(|mortal| *mortal != lease);
                self.story.add(Deed::Ended(lease));
                self.store.expire(lease);
                self.rung = true;
                self.settle();
            }
        }
    }

    /// Whoever waits for what has happened is told at once: being told touches nothing that others see.
    fn settle(&mut self) {
        while let Some((client, answer)) = self.due() {
            self.tell(client, answer);
        }
    }

    fn due(&mut self) -> Option<(usize, Answer)> {
        for (number, client) in self.clients.iter().enumerate() {
            let answer = match &client.stands.asks {
                Some(Ask::Bell) if self.rung => {
                    self.rung = false;
                    Some(Answer::Rung)
                }
                Some(ask @ Ask::Next { .. }) => self.store.answer(ask),
                _ => None,
            };
            if let Some(answer) = answer {
                return Some((number, answer));
            }
        }
        None
    }

    fn tell(&mut self, number: usize, answer: Answer) {
        let before = self.clients[number].clone();
        self.clients[number] = self.troupe.borrow_mut().behind(&before, answer);
    }

    fn has_ended(&self, client: usize) -> bool {
        self.clients[client].stands.outcome.is_some()
    }

    fn asking(&self) -> impl Iterator<Item = (usize, &Ask)> {
        let asks = |client: &'_ Rc<Client>| client.stands.asks.as_ref().is_some_and(|ask| !ask.waits());
        let asking = self.clients.iter().enumerate().filter(move |(_, client)| asks(client));
        asking.filter_map(|(number, client)| Some((number, client.stands.asks.as_ref()?)))
    }

    /// Whether anybody could notice that this lease ends.
    fn concerns(&self, lease: i64) -> bool {
        let owner = self.troupe.borrow().owners.get(&lease).copied();
        !owner.is_some_and(|client| self.has_ended(client)) || self.store.has_key_of(lease)
    }

    fn mortal(&self) -> impl Iterator<Item = i64> {
        self.mortal.iter().copied().filter(|lease| self.concerns(*lease))
    }

    /// Whether it compares a revision of a key that the key will never have again.
    fn has_passed(&self, txn: &TxnRequest) -> bool {
        txn.compare.iter().any(|compare| {
            let kv = self.store.get(&compare.key);
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

    /// How often each was overtaken in a row.
    pub fn overtaken(&self) -> Vec<u32> {
        let Some(tries_max) = self.rules.tries_max else { return Vec::new() };
        let overtaken: Vec<u32> =
            self.clients.iter().map(|client| client.stands.knowledge.overtaken).collect();
        assert!(overtaken.iter().all(|tries| *tries < tries_max), "somebody would give up its order");
        overtaken
    }

    /// All on which the future depends, but for [`Scene::overtaken`].
    pub fn portrait(&self) -> u64 {
        let mut portrait = Portrait::default();
        for (kv, print) in self.store.prints() {
            let forgotten = |forgotten: Forgotten| forgotten(kv, &|client| self.has_ended(client));
            if !self.rules.forgotten.is_some_and(forgotten) {
                portrait.add(print);
            }
        }
        self.store.leases().filter(|lease| self.concerns(*lease)).for_each(|lease| portrait.say(&lease));
        portrait.say(&(self.mortal().count().min(self.rules.deaths_max - self.deaths), self.rung));
        for (number, client) in self.clients.iter().enumerate() {
            portrait.say(&number);
            self.paint(client, &mut portrait);
        }
        portrait.finish(self.store.revision())
    }

    fn paint(&self, client: &Client, portrait: &mut Portrait) {
        let Client { stands, asks, knows, achieved, .. } = client;
        if stands.outcome.is_some() {
            return portrait.add(knows);
        }
        portrait.add(achieved);
        match stands.asks.as_ref().and_then(Ask::attempt) {
            // Of who will be overtaken, that is all that matters.
            Some(txn) if self.has_passed(txn) => portrait.say(&"passed"),
            // And of who tries to change something, what that is.
            Some(_) => portrait.add(asks),
            None => [asks, knows].into_iter().for_each(|print| portrait.add(print)),
        }
        portrait.say(&stands.reading);
        for (key, range_end, from) in stands.watches.values() {
            portrait.say(&(key, range_end));
            for mut change in self.store.changes_in(key, range_end, *from) {
                if let Some(minded) = self.rules.minded {
                    change
                        .events
                        .retain(|event| event.kv.as_ref().is_some_and(|kv| minded(kv, client.number)));
                }
                if !change.events.is_empty() {
                    portrait.add(&Print::of(&change_bytes(&change)));
                }
            }
        }
    }
}
