//! What holders were told, held against the sets in the end: what was acknowledged is there, what was refused is not, and nobody held a
//! lock while another one wrote under it.

use std::collections::BTreeSet;
use std::fmt;

/// What became of an element.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// Its holder has the lock and has read the set.
    Holds,
    /// Its writing was acknowledged.
    Wrote,
    /// The guard did not hold any more: its holder was late.
    Refused,
    /// No answer.
    Unsure,
}

/// A line of a holder's journal.
#[derive(Clone, Debug)]
pub struct Entry {
    pub what: What,
    pub set: usize,
    pub element: String,
    pub token: i64,
    /// Of the writing; 0 where there is none.
    pub revision: i64,
}

/// What came of it.
#[derive(Default)]
pub struct Verdict {
    /// Acknowledged and not there.
    pub lost: Vec<String>,
    /// What else must not be.
    pub wrong: Vec<String>,
    pub acknowledged: usize,
    pub refused: usize,
    unsure: usize,
    unsure_there: usize,
}

pub fn judge(entries: &[Entry], sets: &[BTreeSet<String>], guarded: bool) -> Verdict {
    let mut verdict = Verdict::default();
    for Entry { what, set, element, .. } in entries {
        let there = sets[*set].contains(element);
        match what {
            What::Holds => {}
            What::Wrote => {
                verdict.acknowledged += 1;
                if !there {
                    verdict.lost.push(element.clone());
                }
            }
            What::Refused => {
                verdict.refused += 1;
                if there {
                    verdict.wrong.push(format!("{element} was refused and is in set {set}"));
                }
            }
            What::Unsure => {
                verdict.unsure += 1;
                verdict.unsure_there += usize::from(there);
            }
        }
    }
    if guarded {
        (0..sets.len()).for_each(|set| verdict.wrong.extend(overlaps(entries, set)));
    }
    verdict
}

/// From a grant to what was written under it nobody else may be granted the lock.
fn overlaps(entries: &[Entry], set: usize) -> Vec<String> {
    let of_set = || entries.iter().filter(|entry| entry.set == set);
    let tokens: BTreeSet<i64> = of_set().map(|entry| entry.token).collect();
    let written = of_set().filter(|entry| entry.what == What::Wrote);
    let overlapped = written.filter_map(|entry| {
        let other = tokens.range(entry.token + 1..entry.revision).next()?;
        Some(format!("{entry} was written though {other} had been granted set {set}"))
    });
    overlapped.collect()
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Entry { what, set, element, token, revision } = self;
        write!(f, "{what:?} {set} {element} {token} {revision}")
    }
}

impl Entry {
    /// None: a line that is under way.
    pub fn parse(line: &str) -> Option<Entry> {
        let words: Vec<&str> = line.split(' ').collect();
        let [what, set, element, token, revision] = words[..] else { return None };
        let all = [What::Holds, What::Wrote, What::Refused, What::Unsure];
        Some(Entry {
            what: all.into_iter().find(|one| format!("{one:?}") == what)?,
            set: set.parse().ok()?,
            element: element.to_owned(),
            token: token.parse().ok()?,
            revision: revision.parse().ok()?,
        })
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Verdict { lost, wrong, acknowledged, refused, unsure, unsure_there } = self;
        write!(
            f,
            "{acknowledged} acknowledged, {} of them lost; {refused} refused; {unsure} without an answer, {unsure_there} of them \
             there; {} other findings",
            lost.len(),
            wrong.len()
        )
    }
}

#[test]
fn the_judge_of_sets_finds_what_is_lost_what_was_refused_and_who_overlaps() {
    let entry = |what, element: &str, token, revision| Entry {
        what,
        set: 0,
        element: element.to_owned(),
        token,
        revision,
    };
    let there: BTreeSet<String> = ["a", "refused", "b"].map(str::to_owned).into();
    let right = [entry(What::Wrote, "a", 3, 4), entry(What::Wrote, "b", 6, 7)];
    let verdict = judge(&right, std::slice::from_ref(&there), true);
    assert!(verdict.lost.is_empty() && verdict.wrong.is_empty());
    let wrong = [
        entry(What::Wrote, "a", 3, 9),
        entry(What::Wrote, "b", 6, 7),
        entry(What::Refused, "refused", 10, 0),
        entry(What::Wrote, "lost", 12, 13),
    ];
    let verdict = judge(&wrong, &[there], true);
    assert_eq!((verdict.lost, verdict.wrong.len()), (vec!["lost".to_owned()], 2));
}
