//! Where the keys of a lock stand, and what a key is. The layout is a public contract: recipes/README.md. Knows no values.

use crate::key::Root;

/// Who acquires: the session it lives by, and a name of its own choice within that.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Owner {
    pub session: i64,
    pub id: String,
}

/// The keys of one lock.
#[derive(Clone, Copy)]
pub struct Keys<'a> {
    root: &'a Root,
    name: &'a str,
}

/// What a key of a lock is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    State,
    Holder { owner: Owner, upgraded: bool },
    Mark(Owner),
    Queued { number: String, owner: Owner },
    Place(Owner),
    Broken(Owner),
    Delay,
    Policy,
}

/// The first segment of all keys of locks.
pub const KIND: &str = "lock";

impl<'a> Keys<'a> {
    pub fn new(root: &'a Root, name: &'a str) -> Keys<'a> {
        Keys { root, name }
    }

    pub fn state(&self) -> Vec<u8> {
        self.root.key(&[KIND, self.name, "state"])
    }

    pub fn delay(&self) -> Vec<u8> {
        self.root.key(&[KIND, self.name, "delay"])
    }

    pub fn policy(&self) -> Vec<u8> {
        self.root.key(&[KIND, self.name, "policy"])
    }

    pub fn holder(&self, owner: &Owner, upgraded: bool) -> Vec<u8> {
        self.of_owner(if upgraded { "upgraded" } else { "holder" }, owner)
    }

    pub fn mark(&self, owner: &Owner) -> Vec<u8> {
        self.of_owner("mark", owner)
    }

    pub fn place(&self, owner: &Owner) -> Vec<u8> {
        self.of_owner("place", owner)
    }

    pub fn broken(&self, owner: &Owner) -> Vec<u8> {
        self.of_owner("ended", owner)
    }

    pub fn queued(&self, number: &str, owner: &Owner) -> Vec<u8> {
        self.root.key(&[KIND, self.name, "queue", number, &hexadecimal(owner.session), &owner.id])
    }

    /// The queue from this number on.
    pub fn queue_from(&self, number: &str) -> (Vec<u8>, Vec<u8>) {
        let (_, end) = self.root.below(&[KIND, self.name, "queue"]);
        (self.root.key(&[KIND, self.name, "queue", number]), end)
    }

    pub fn holders(&self, upgraded: bool) -> (Vec<u8>, Vec<u8>) {
        self.root.below(&[KIND, self.name, if upgraded { "upgraded" } else { "holder" }])
    }

    pub fn marks(&self) -> (Vec<u8>, Vec<u8>) {
        self.root.below(&[KIND, self.name, "mark"])
    }

    fn of_owner(&self, what: &str, owner: &Owner) -> Vec<u8> {
        self.root.key(&[KIND, self.name, what, &hexadecimal(owner.session), &owner.id])
    }
}

/// The lock and the part of it that this key is; None for keys of anything else.
pub fn part(root: &Root, key: &[u8]) -> Option<(String, Part)> {
    let segments = root.segments(key)?;
    let (kind, rest) = segments.split_first()?;
    if kind != KIND {
        return None;
    }
    let (name, rest) = rest.split_first()?;
    let rest: Vec<&str> = rest.iter().map(String::as_str).collect();
    let part = match rest[..] {
        ["state"] => Part::State,
        ["delay"] => Part::Delay,
        ["policy"] => Part::Policy,
        ["holder", session, id] => Part::Holder { owner: owner(session, id)?, upgraded: false },
        ["upgraded", session, id] => Part::Holder { owner: owner(session, id)?, upgraded: true },
        ["mark", session, id] => Part::Mark(owner(session, id)?),
        ["place", session, id] => Part::Place(owner(session, id)?),
        ["ended", session, id] => Part::Broken(owner(session, id)?),
        ["queue", number, session, id] => {
            Part::Queued { number: number.to_owned(), owner: owner(session, id)? }
        }
        _ => return None,
    };
    Some((name.clone(), part))
}

/// Sixteen digits, so that the order of the texts is the order of the numbers.
pub fn hexadecimal(number: i64) -> String {
    format!("{number:016x}")
}

fn owner(session: &str, id: &str) -> Option<Owner> {
    let session = u64::from_str_radix(session, 16).ok()?;
    Some(Owner { session: session.cast_signed(), id: id.to_owned() })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn each_key_says_what_it_is() {
        let root = Root::server();
        let keys = Keys::new(&root, "jobs/nightly");
        let owner = Owner { session: -7, id: "a/b%".into() };
        let number = hexadecimal(812);
        let queued = Part::Queued { number: number.clone(), owner: owner.clone() };
        for (key, expected) in [
            (keys.state(), Part::State),
            (keys.delay(), Part::Delay),
            (keys.policy(), Part::Policy),
            (keys.holder(&owner, false), Part::Holder { owner: owner.clone(), upgraded: false }),
            (keys.holder(&owner, true), Part::Holder { owner: owner.clone(), upgraded: true }),
            (keys.mark(&owner), Part::Mark(owner.clone())),
            (keys.place(&owner), Part::Place(owner.clone())),
            (keys.broken(&owner), Part::Broken(owner.clone())),
            (keys.queued(&number, &owner), queued),
        ] {
            assert_eq!(part(&root, &key), Some(("jobs/nightly".to_owned(), expected)));
        }
        assert_eq!(part(&root, b"/_tenure/lock/a/queue/1"), None);
        assert_eq!(part(&root, b"/_tenure/election/a/state"), None);
    }

    #[test]
    fn the_queue_is_in_the_order_of_its_numbers() {
        let root = Root::server();
        let keys = Keys::new(&root, "a");
        let owner = Owner { session: 1, id: "x".into() };
        let at = |number: i64| keys.queued(&hexadecimal(number), &owner);
        let (from, to) = keys.queue_from(&hexadecimal(16));
        assert!(
            at(15) < from && from < at(16) && at(16) < at(255) && at(255) < at(i64::MAX) && at(i64::MAX) < to
        );
    }
}
