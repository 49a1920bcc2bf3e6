//! Who the members are, and who once was one. The set follows the log's membership entries; name and client addresses are
//! what each member published of itself.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use prost::Message;
use tenure_proto::internal::{MemberPublish, StoredMember};

use crate::change::Write;
use crate::stored;

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Member {
    pub id: u64,
    /// Empty until the member has started.
    pub name: String,
    pub peer_urls: Vec<String>,
    pub client_urls: Vec<String>,
    /// Added as a learner and not promoted yet. False of a voter that has yet to catch up before it votes.
    pub is_learner: bool,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Members {
    members: BTreeMap<u64, Member>,
    /// Ids that never return, be their URLs used again. All are kept: they are as few as the members that ever were.
    removed: BTreeSet<u64>,
}

impl Members {
    pub fn get(&self, id: u64) -> Option<&Member> {
        self.members.get(&id)
    }

    pub fn iter(&self) -> impl Iterator<Item = &Member> {
        self.members.values()
    }

    /// In ascending order.
    pub fn removed(&self) -> impl Iterator<Item = u64> {
        self.removed.iter().copied()
    }

    pub fn is_removed(&self, id: u64) -> bool {
        self.removed.contains(&id)
    }

    pub(crate) fn replace(&mut self, members: Vec<Member>) -> Vec<Write> {
        let mut next = BTreeMap::new();
        for mut member in members {
            if let Some(known) = self.members.get(&member.id) {
                member.name = known.name.clone();
                member.client_urls = known.client_urls.clone();
            }
            next.insert(member.id, member);
        }
        let before = std::mem::replace(&mut self.members, next);
        let mut writes = Vec::new();
        for id in before.into_keys().filter(|id| !self.members.contains_key(id)) {
            self.removed.insert(id);
            writes.push(Write::Meta { key: stored::member_key(id), value: None });
            writes.push(Write::Meta { key: stored::removed_key(id), value: Some(Bytes::new()) });
        }
        writes.extend(self.members.values().map(write));
        writes
    }

    pub(crate) fn publish(&mut self, publish: &MemberPublish) -> Option<Write> {
        let member = self.members.get_mut(&publish.id)?;
        member.name = publish.name.clone();
        member.client_urls = publish.client_urls.clone();
        Some(write(member))
    }

    pub(crate) fn restore_removed(&mut self, id: u64) {
        self.removed.insert(id);
    }

    pub(crate) fn restore(&mut self, stored: StoredMember) {
        let StoredMember { id, name, client_urls, peer_urls, is_learner } = stored;
        self.members.insert(id, Member { id, name, peer_urls, client_urls, is_learner });
    }
}

fn write(member: &Member) -> Write {
    let Member { id, name, peer_urls, client_urls, is_learner } = member.clone();
    let stored = StoredMember { id, name, client_urls, peer_urls, is_learner };
    Write::Meta { key: stored::member_key(id), value: Some(Bytes::from(stored.encode_to_vec())) }
}
