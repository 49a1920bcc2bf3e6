//! Headers: whoever asks a member after it has answered is never told an older revision or an older term by it, whatever
//! became of it in between. Clients hold on to the newest term they have seen and refuse members that fall behind it.

use std::collections::BTreeMap;

use super::{Finding, Law};
use crate::history::{Header, Moment, Recording};

pub fn check(recording: &Recording) -> Vec<Finding> {
    let mut members: BTreeMap<usize, Vec<Told>> = BTreeMap::new();
    for operation in &recording.operations {
        if let Some((header, _)) = operation.done() {
            let told = Told { asked: operation.asked, answered: operation.answered, header };
            members.entry(operation.member).or_default().push(told);
        }
    }
    members.into_iter().flat_map(|(member, told)| backwards(member, told)).collect()
}

struct Told {
    asked: Moment,
    answered: Moment,
    header: Header,
}

fn backwards(member: usize, mut told: Vec<Told>) -> Vec<Finding> {
    told.sort_by_key(|told| told.answered);
    let mut by_question: Vec<&Told> = told.iter().collect();
    by_question.sort_by_key(|told| told.asked);
    let mut answers = told.iter().peekable();
    let mut highest = Header::default();
    let mut findings = Vec::new();
    for now in by_question {
        while let Some(before) = answers.next_if(|before| before.answered < now.asked) {
            highest.revision = highest.revision.max(before.header.revision);
            highest.term = highest.term.max(before.header.term);
        }
        if now.header.revision < highest.revision || now.header.term < highest.term {
            findings.push(Finding {
                law: Law::Header,
                what: format!(
                    "member {member} went back from {highest:?} to {:?}, asked at {}",
                    now.header, now.asked
                ),
            });
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::super::made_up::{Story, text};
    use super::*;
    use crate::history::{Action, Answer, Outcome};

    fn tell(story: &mut Story, asked: Moment, answered: Moment, revision: i64, term: u64) {
        let action = Action::Get { key: text("a"), serializable: true };
        story.ask(asked, answered, action, Outcome::Done(Header { revision, term }, Answer::Got(None)));
    }

    fn broken(tell_more: impl FnOnce(&mut Story)) -> bool {
        let mut story = Story::default();
        tell(&mut story, 10, 20, 5, 2);
        tell_more(&mut story);
        !check(&story.recording).is_empty()
    }

    #[test]
    fn a_member_may_stand_still_and_overlapping_answers_have_no_order() {
        assert!(!broken(|story| tell(story, 30, 40, 5, 2)));
        assert!(!broken(|story| tell(story, 15, 40, 4, 1)));
    }

    #[test]
    fn going_back_is_found() {
        assert!(broken(|story| tell(story, 30, 40, 4, 2)));
        assert!(broken(|story| tell(story, 30, 40, 5, 1)));
    }

    #[test]
    fn another_member_may_be_behind() {
        assert!(!broken(|story| {
            tell(story, 30, 40, 4, 1);
            story.recording.operations[1].member = 1;
        }));
    }
}
