//! How a member without data begins: which cluster it founds or joins. Asked for only then, as etcd does; a member
//! that has data does not look at these flags again.

use std::collections::{BTreeMap, BTreeSet};

use super::urls::{Url, peer_list};
use super::{ClusterState, Config, Error};
use crate::ids::{ClusterId, MemberId};

/// The initial flags as given, not checked against each other yet.
#[derive(Debug, Clone)]
pub(super) struct InitialFlags {
    pub advertise_peer_urls: Vec<Url>,
    /// None: this member alone.
    pub cluster: Option<String>,
    pub state: ClusterState,
    pub token: String,
}

/// The cluster to found or to join; contains this member under its own name, with the peer URLs it advertises.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bootstrap {
    pub state: ClusterState,
    pub token: String,
    /// Peer URLs by name; no URL stands twice.
    pub members: BTreeMap<String, Vec<Url>>,
}

impl Bootstrap {
    /// Every initial member's id. Holds for a founded cluster only: members added later are given theirs by it.
    pub fn member_ids(&self) -> BTreeMap<&str, MemberId> {
        let id = |urls: &Vec<Url>| MemberId::at_bootstrap(urls, &self.token);
        self.members.iter().map(|(name, urls)| (name.as_str(), id(urls))).collect()
    }

    /// The founded cluster's id.
    pub fn cluster_id(&self) -> ClusterId {
        ClusterId::of(&self.member_ids().into_values().collect::<Vec<_>>())
    }
}

impl Config {
    /// How other members call this one, as first told to them.
    pub fn initial_advertise_peer_urls(&self) -> &[Url] {
        &self.initial.advertise_peer_urls
    }

    pub fn initial_cluster_token(&self) -> &str {
        &self.initial.token
    }

    /// What to do when there is no data yet. The error says what in `--initial-*` contradicts itself.
    pub fn bootstrap(&self) -> Result<Bootstrap, Error> {
        let InitialFlags { advertise_peer_urls: own_urls, cluster, state, token } = &self.initial;
        let members = match cluster {
            None => BTreeMap::from([(self.name.clone(), own_urls.clone())]),
            Some(text) => members(text)?,
        };
        check_no_url_twice(&members)?;
        let Some(listed) = members.get(&self.name) else {
            let names = members.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
            return Err(Error::check(format!(
                "couldn't find local name {:?} in the initial cluster configuration, which names {names}; \
                 let --name and --initial-cluster agree",
                self.name
            )));
        };
        check_same_doors(&self.name, listed, own_urls)?;
        Ok(Bootstrap { state: *state, token: token.clone(), members })
    }
}

fn members(text: &str) -> Result<BTreeMap<String, Vec<Url>>, Error> {
    let wrong = |why: String| Error::check(format!("error setting up initial cluster from {text:?}: {why}"));
    let mut members: BTreeMap<String, Vec<Url>> = BTreeMap::new();
    for entry in text.split(',').map(str::trim).filter(|entry| !entry.is_empty()) {
        let pair = entry.split_once('=').filter(|(name, _)| !name.trim().is_empty());
        let (name, url) = pair.ok_or_else(|| {
            wrong(format!("{entry:?} is not name=url; write --initial-cluster a=http://10.0.0.1:2380,b=..."))
        })?;
        let urls = peer_list(url).map_err(wrong)?.0;
        members.entry(name.trim().to_owned()).or_default().extend(urls);
    }
    if members.is_empty() {
        return Err(wrong("it names no member".to_owned()));
    }
    for urls in members.values_mut() {
        urls.sort();
    }
    Ok(members)
}

fn check_no_url_twice(members: &BTreeMap<String, Vec<Url>>) -> Result<(), Error> {
    let mut seen = BTreeSet::new();
    match members.values().flatten().find(|url| !seen.insert(*url)) {
        Some(url) => {
            Err(Error::check(format!("initial cluster has duplicate url {url}; each member needs its own")))
        }
        None => Ok(()),
    }
}

/// Others would otherwise call this member where it is not, or its id would differ from what they computed.
fn check_same_doors(name: &str, listed: &[Url], own: &[Url]) -> Result<(), Error> {
    let lacking = |from: &[Url], url: &&Url| !from.iter().any(|other| other.same_address(url));
    let complain = |url: &Url, missing_from: &str, urls: &[Url]| {
        let urls = urls.iter().map(Url::as_str).collect::<Vec<_>>().join(",");
        Err(Error::check(format!("{name}={url} is missing from {missing_from}={urls}; let the two agree")))
    };
    if let Some(url) = listed.iter().find(|url| lacking(own, url)) {
        return complain(url, "--initial-advertise-peer-urls", own);
    }
    match own.iter().find(|url| lacking(listed, url)) {
        Some(url) => complain(url, "--initial-cluster", listed),
        None => Ok(()),
    }
}
