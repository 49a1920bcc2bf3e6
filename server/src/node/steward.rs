//! Does what is due when a holder is gone, on the leader: whoever is next in line gets his place at once, though none of those who
//! wait has a call open. It only notices; what is due each recipe knows, and doing it twice does nothing. What it misses (a
//! leader may die at any moment) its successor looks at when it takes office.

use std::collections::BTreeSet;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt};
use tenure_proto::etcdserverpb::RangeRequest;
use tenure_recipes::{Failure, Primitives, Root};
use tenure_state::{Event, Interval, Revision, WatchSpec};
use tokio::sync::watch;

use super::primitives::Here;
use super::watches::{Next, WatchStream};
use crate::raft::Leadership;

/// What the steward does for one recipe.
pub struct Recipe {
    /// The first segment of its keys.
    pub kind: &'static str,
    /// What is to be looked at after a revision did this to its keys: words that only `help` understands. Called for every revision
    /// on the leader, so it must be quick; [`bereft`] serves most.
    pub concerned: fn(&Here, &[&Event]) -> BTreeSet<String>,
    /// What is to be looked at when a leader takes office, as one of its keys says; None if this key says nothing.
    pub standing: fn(&[u8]) -> Option<String>,
    /// Looks, and does what is due. Doing it twice does nothing.
    pub help: fn(Here, String) -> BoxFuture<'static, Result<(), Failure>>,
}

pub type Recipes = &'static [Recipe];

/// Below which the keys of the server's recipes lie.
const PREFIX: &[u8] = b"/_tenure/";
/// Things looked at at once.
const UNDER_WAY_MAX: usize = 32;
/// Keys on a page when all are looked at.
const PAGE: i64 = 1_000;
/// Before another try when the cluster did not answer.
const PAUSE: Duration = Duration::from_millis(100);

pub struct Steward {
    pub here: Here,
    pub leadership: watch::Receiver<Leadership>,
    pub recipes: Recipes,
}

/// The recipe's kind, and the word for what is to be looked at.
type Thing = (&'static str, String);

impl Steward {
    /// Runs on every member, works on the leader.
    pub async fn run(mut self) {
        if self.recipes.is_empty() {
            return;
        }
        let mut leadership = self.leadership.clone();
        while leadership.wait_for(|now| now.here).await.is_ok() {
            tokio::select! {
                () = self.serve() => {}
                _ = leadership.wait_for(|now| !now.here) => {}
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Returns when it could not go on: what was missed then is looked at anew.
    async fn serve(&mut self) {
        let Some((stream, mut due)) = self.begin().await else { return };
        let mut under_way: BTreeSet<Thing> = BTreeSet::new();
        let mut helping = FuturesUnordered::new();
        loop {
            while helping.len() < UNDER_WAY_MAX {
                let Some(thing) = due.iter().find(|thing| !under_way.contains(*thing)).cloned() else {
                    break;
                };
                due.remove(&thing);
                under_way.insert(thing.clone());
                helping.push(self.help(thing));
            }
            tokio::select! {
                Some((thing, helped)) = helping.next() => {
                    under_way.remove(&thing);
                    if !helped {
                        due.insert(thing);
                    }
                }
                next = stream.next() => match next {
                    Ok(Next::Events(delivery)) => {
                        for piece in &delivery.pieces {
                            due.extend(self.concerned(&piece.events().collect::<Vec<_>>()));
                        }
                    }
                    Ok(Next::Progress { .. }) => {}
                    Ok(Next::Canceled { .. } | Next::Stopping) | Err(_) => return,
                }
            }
        }
    }

    /// A watch over all keys, and everything there was before it.
    async fn begin(&self) -> Option<(WatchStream, BTreeSet<Thing>)> {
        let (mut key, end) = Root::server().below(&[]);
        let (mut things, mut from) = (BTreeSet::new(), None);
        loop {
            let range = RangeRequest {
                key: key.into(),
                range_end: end.clone().into(),
                limit: PAGE,
                keys_only: true,
                // The first page is read with a proof, the others can only be newer.
                serializable: from.is_some(),
                ..RangeRequest::default()
            };
            let page = self.here.range(range).await.ok()?;
            from = from.or(page.header.map(|header| header.revision));
            things.extend(page.kvs.iter().filter_map(|kv| self.standing(&kv.key)));
            match page.kvs.last() {
                Some(last) if page.more => key = [&last.key[..], &[0]].concat(),
                Some(_) | None => break,
            }
        }
        let stream = self.here.watches.open();
        let (key, end) = Root::server().below(&[]);
        let spec = WatchSpec::new(Interval::new(&key, &end), Revision(from? + 1));
        stream.create(&spec).ok()?;
        Some((stream, things))
    }

    /// What a revision leaves to be looked at.
    fn concerned(&self, events: &[&Event]) -> BTreeSet<Thing> {
        let mut things = BTreeSet::new();
        for recipe in self.recipes {
            let own: Vec<&Event> = events
                .iter()
                .copied()
                .filter(|event| kind(&event.key) == Some(recipe.kind.as_bytes()))
                .collect();
            if !own.is_empty() {
                let words = (recipe.concerned)(&self.here, &own);
                things.extend(words.into_iter().map(|word| (recipe.kind, word)));
            }
        }
        things
    }

    fn standing(&self, key: &[u8]) -> Option<Thing> {
        let kind = kind(key)?;
        let recipe = self.recipes.iter().find(|recipe| recipe.kind.as_bytes() == kind)?;
        Some((recipe.kind, (recipe.standing)(key)?))
    }

    fn help(&self, thing: Thing) -> impl Future<Output = (Thing, bool)> + Send + 'static + use<> {
        let help = self.recipes.iter().find(|recipe| recipe.kind == thing.0).map(|recipe| recipe.help);
        let here = self.here.clone();
        async move {
            let Some(help) = help else { return (thing, true) };
            match help(here, thing.1.clone()).await {
                Ok(()) => (thing, true),
                Err(failure) => {
                    tracing::debug!(kind = thing.0, name = thing.1, %failure, "could not see to what is due yet");
                    tokio::time::sleep(PAUSE).await;
                    (thing, false)
                }
            }
        }
    }
}

/// The names that lost a key in a revision. Where a key was put as well it was the recipe itself that moved on, and left nothing due;
/// where no key is left nobody waits.
pub fn bereft(here: &Here, events: &[&Event]) -> BTreeSet<String> {
    let (mut lost, mut put) = (BTreeSet::new(), BTreeSet::new());
    for event in events {
        let Some(place) = place(&event.key) else { continue };
        if event.place.tombstone {
            lost.insert(place)
        } else {
            put.insert(place)
        };
    }
    let waited_for = lost.difference(&put).filter(|place| here.has_keys_below(place));
    waited_for.filter_map(|place| name(place)).collect()
}

/// The name that a key belongs to: its second segment.
pub fn name(key: &[u8]) -> Option<String> {
    Root::server().segments(key)?.into_iter().nth(1)
}

/// The first segment, as it stands in the key.
fn kind(key: &[u8]) -> Option<&[u8]> {
    key.strip_prefix(PREFIX)?.split(|byte| *byte == b'/').next()
}

/// The part of a key up to its name, with the separator behind it.
fn place(key: &[u8]) -> Option<&[u8]> {
    let below = key.strip_prefix(PREFIX)?;
    let mut separators = below.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(at, _)| at);
    let (_, end) = (separators.next()?, separators.next()?);
    key.get(..PREFIX.len() + end + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_told_apart_by_kind_and_name() {
        assert_eq!(PREFIX, Root::server().as_bytes());
        let key = Root::server().key(&["lock", "jobs/nightly", "h", "1"]);
        assert_eq!(kind(&key), Some(&b"lock"[..]));
        assert_eq!(place(&key), Some(&b"/_tenure/lock/jobs%2Fnightly/"[..]));
        assert_eq!(name(&key).as_deref(), Some("jobs/nightly"));
        assert_eq!((kind(b"/elsewhere"), place(b"/_tenure/locks/a")), (None, None));
    }
}
