//! The second opinion: linearizability of each key by search (Wing and Gong, with Lowe's memory of what was tried), from
//! questions and answers alone. It believes no revision, so that a mistake in how revisions are given out, or in the other
//! check, does not hide here as well. Exponential in the worst case, therefore bounded: what it cannot decide, it counts.

use std::collections::{BTreeMap, HashMap, HashSet};

use prost::bytes::Bytes;

use super::{Finding, Law};
use crate::history::{Action, Answer, Moment, Operation, Outcome};

/// States tried for one key.
const TRIES_MAX: usize = 400_000;

/// The findings, and the number of keys that were too hard.
pub fn check(operations: &[Operation]) -> (Vec<Finding>, usize) {
    let mut keys: BTreeMap<&Bytes, Vec<Step>> = BTreeMap::new();
    let mut values = HashMap::from([(None, 0)]);
    for operation in operations {
        if let Some((key, step)) = step(operation, &mut values) {
            keys.entry(key).or_default().push(step);
        }
    }
    let mut findings = Vec::new();
    let mut undecided = 0;
    for (key, steps) in keys {
        match search(steps) {
            Found::Order => {}
            Found::TooHard => undecided += 1,
            Found::None { done, asked } => findings.push(Finding {
                law: Law::Search,
                what: format!(
                    "no order explains the answers about {key:?}: {done} of {asked} answers in the best try"
                ),
            }),
        }
    }
    (findings, undecided)
}

/// A value, by number; 0: the key does not exist.
type Value = u32;

/// One operation on one key.
#[derive(Clone, Copy, Debug)]
struct Step {
    asked: Moment,
    /// None: it may take effect at any time, or never.
    answered: Option<Moment>,
    does: Does,
}

#[derive(Clone, Copy, Debug)]
enum Does {
    Set(Value),
    /// With what it was told: whether the key was there.
    Delete(Option<bool>),
    /// From a value to another, with whether it was told to have happened.
    Swap {
        from: Value,
        to: Value,
    },
    /// It found this value, which is not the one it wanted.
    Miss {
        wanted: Value,
        found: Value,
    },
    Read(Value),
}

impl Does {
    /// What becomes of the key, if this may happen now.
    fn apply(self, now: Value) -> Option<Value> {
        match self {
            Does::Set(value) => Some(value),
            Does::Delete(told) => (told.is_none() || told == Some(now != 0)).then_some(0),
            Does::Swap { from, to } => (now == from).then_some(to),
            Does::Miss { wanted, found } => (now == found && now != wanted).then_some(now),
            Does::Read(value) => (now == value).then_some(now),
        }
    }
}

fn step<'a>(
    operation: &'a Operation,
    values: &mut HashMap<Option<&'a Bytes>, Value>,
) -> Option<(&'a Bytes, Step)> {
    let next = values.len() as Value;
    let mut number = |value: Option<&'a Bytes>| *values.entry(value).or_insert(next);
    let answer = match &operation.outcome {
        Outcome::Done(_, answer) => Some(answer),
        Outcome::Unknown(_) => None,
        Outcome::Refused(_) => return None,
    };
    let (key, does) = match (&operation.action, answer) {
        // What hangs on a lease ends by itself.
        (Action::Put { lease, .. }, _) if *lease != 0 => return None,
        (Action::Put { key, value, .. }, _) => (key, Does::Set(number(Some(value)))),
        (Action::Delete { key }, Some(Answer::Deleted(there))) => (key, Does::Delete(Some(*there))),
        (Action::Delete { key }, _) => (key, Does::Delete(None)),
        (Action::Swap { key, expected, .. }, Some(Answer::NotSwapped(kv))) => {
            let wanted = *values.get(&expected.as_ref()).unwrap_or(&Value::MAX);
            let next = values.len() as Value;
            let found = *values.entry(kv.as_ref().map(|kv| &kv.value)).or_insert(next);
            (key, Does::Miss { wanted, found })
        }
        (Action::Swap { key, expected, value, .. }, _) => {
            let from = number(expected.as_ref());
            let next = values.len() as Value;
            (key, Does::Swap { from, to: *values.entry(Some(value)).or_insert(next) })
        }
        (Action::Get { key, serializable: false }, Some(Answer::Got(kv))) => {
            (key, Does::Read(number(kv.as_ref().map(|kv| &kv.value))))
        }
        _ => return None,
    };
    let answered = answer.map(|_| operation.answered);
    Some((key, Step { asked: operation.asked, answered, does }))
}

enum Found {
    Order,
    TooHard,
    None { done: usize, asked: usize },
}

/// Which steps were taken, as bits.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Taken(Vec<u64>);

impl Taken {
    fn has(&self, place: usize) -> bool {
        self.0[place / 64] >> (place % 64) & 1 == 1
    }

    fn flip(&mut self, place: usize) {
        self.0[place / 64] ^= 1 << (place % 64);
    }
}

/// One step of the way taken: what could be next there, and what is left to try of it.
struct Fork {
    choices: Vec<usize>,
    next: usize,
    value: Value,
}

fn search(mut steps: Vec<Step>) -> Found {
    steps.sort_by_key(|step| step.asked);
    let asked = steps.iter().filter(|step| step.answered.is_some()).count();
    let mut taken = Taken(vec![0; steps.len().div_ceil(64)]);
    let mut tried: HashSet<(Taken, Value)> = HashSet::new();
    let mut way: Vec<usize> = Vec::new();
    let (mut done, mut best) = (0, 0);
    let mut forks = vec![Fork { choices: choices(&steps, &taken), next: 0, value: 0 }];
    loop {
        if done == asked {
            return Found::Order;
        }
        if tried.len() > TRIES_MAX {
            return Found::TooHard;
        }
        let fork = forks.last_mut().expect("the first fork is left only by returning");
        let Some(&place) = fork.choices.get(fork.next) else {
            forks.pop();
            let Some(back) = way.pop() else { return Found::None { done: best, asked } };
            taken.flip(back);
            done -= usize::from(steps[back].answered.is_some());
            continue;
        };
        fork.next += 1;
        let Some(value) = steps[place].does.apply(fork.value) else { continue };
        taken.flip(place);
        if !tried.insert((taken.clone(), value)) {
            taken.flip(place);
            continue;
        }
        way.push(place);
        done += usize::from(steps[place].answered.is_some());
        best = best.max(done);
        forks.push(Fork { choices: choices(&steps, &taken), next: 0, value });
    }
}

/// What may come next: whatever was asked before the first answer that is still owed. Those with an answer first, the earliest
/// at the front; what may never have happened is tried last.
fn choices(steps: &[Step], taken: &Taken) -> Vec<usize> {
    let open = |place: &usize| !taken.has(*place);
    let owed = (0..steps.len()).filter(open).filter_map(|place| steps[place].answered).min();
    let first = owed.unwrap_or(Moment::MAX);
    let mut choices: Vec<usize> =
        (0..steps.len()).take_while(|place| steps[*place].asked <= first).filter(open).collect();
    choices.sort_by_key(|place| steps[*place].answered.unwrap_or(Moment::MAX));
    choices
}

#[cfg(test)]
mod tests {
    use super::super::made_up::{Story, pair, text};
    use super::*;

    fn broken(story: &Story) -> bool {
        let (findings, undecided) = check(&story.recording.operations);
        assert_eq!(undecided, 0);
        !findings.is_empty()
    }

    fn read(story: &mut Story, asked: Moment, answered: Moment, value: Option<&str>) {
        // The revision is a lie on purpose: nobody looks at it here.
        story.get(asked, answered, "a", false, 99, value.map(|value| pair("a", value, 1, 1, 1)));
    }

    #[test]
    fn one_after_the_other_passes() {
        let mut story = Story::default();
        story.put(10, 20, "a", "1", Some(2));
        read(&mut story, 30, 40, Some("1"));
        story.delete(50, 60, "a", Some(3));
        read(&mut story, 70, 80, None);
        assert!(!broken(&story));
    }

    #[test]
    fn a_stale_read_is_found() {
        let mut story = Story::default();
        story.put(10, 20, "a", "1", Some(2));
        story.put(30, 40, "a", "2", Some(3));
        read(&mut story, 50, 60, Some("1"));
        assert!(broken(&story));
    }

    #[test]
    fn a_lost_write_is_found() {
        let mut story = Story::default();
        story.put(10, 20, "a", "1", Some(2));
        read(&mut story, 30, 40, None);
        assert!(broken(&story));
    }

    #[test]
    fn overlapping_writes_may_come_either_way_but_only_one_way() {
        let mut story = Story::default();
        story.put(10, 100, "a", "1", Some(2));
        story.put(10, 100, "a", "2", Some(3));
        read(&mut story, 110, 120, Some("1"));
        assert!(!broken(&story));
        read(&mut story, 130, 140, Some("2"));
        assert!(broken(&story));
    }

    #[test]
    fn a_write_of_unknown_outcome_may_come_late_or_never_but_not_twice() {
        let mut story = Story::default();
        story.put(10, 20, "a", "maybe", None);
        story.put(30, 40, "a", "1", Some(2));
        read(&mut story, 50, 60, Some("1"));
        assert!(!broken(&story));
        read(&mut story, 70, 80, Some("maybe"));
        assert!(!broken(&story));
        story.put(90, 95, "a", "2", Some(2));
        assert!(!broken(&story));
        read(&mut story, 100, 110, Some("maybe"));
        assert!(broken(&story));
    }

    #[test]
    fn of_two_swaps_from_one_value_only_one_happens() {
        let swap = |story: &mut Story, asked, value: &str| {
            let action = Action::Swap {
                key: text("a"),
                unchanged_since: 2,
                expected: Some(text("1")),
                value: text(value),
            };
            let told = Outcome::Done(Default::default(), Answer::Swapped);
            story.ask(asked, asked + 50, action, told);
        };
        let mut story = Story::default();
        story.put(10, 20, "a", "1", Some(2));
        swap(&mut story, 30, "2");
        assert!(!broken(&story));
        swap(&mut story, 40, "3");
        assert!(broken(&story));
    }

    #[test]
    fn a_thousand_steps_of_eight_clients_are_decided() {
        let mut story = Story::default();
        let mut last = String::new();
        for round in 0..250 {
            let at = round * 100;
            for client in 0..3 {
                last = format!("{round}.{client}");
                // One in ten is never answered.
                let told = (round % 10 != 0 || client == 2).then_some(1);
                story.put(at + client, at + 50 + client, "a", &last, told);
            }
            read(&mut story, at + 60, at + 70, Some(&last.clone()));
        }
        assert!(!broken(&story));
        read(&mut story, 99_000, 99_001, Some(&last));
        assert!(!broken(&story));
    }
}
