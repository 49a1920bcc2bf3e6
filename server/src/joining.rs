//! How a member without data comes to its identity: it asks whoever listens at the addresses of `--initial-cluster` which
//! cluster runs there, then founds one with the others or joins theirs, or is told why it may not. A member that lost its
//! data must not return under its old id: it has promised things to the others (votes, entries on its disk) that it no
//! longer knows of. It decides; files, the log and the services of the running member are others' business.

use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use tenure_grpc::internal::joining_client::JoiningClient;
use tenure_proto::internal::{ClusterDescription, DescribeRequest, StoredMember};

use crate::config::{Bootstrap, ClusterState, Url};
use crate::data_dir::{Identity, Origin, token_fits};
use crate::ids::{ClusterId, MemberId};
use crate::net::Net;
use crate::peers;

/// How often a member that is to join asks again before it gives up: the addition may have been answered by one member
/// before all others knew of it.
const ROUNDS: usize = 10;
const PAUSE: Duration = Duration::from_millis(500);

/// Why the member may not begin. The words before the colon are etcd's.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error(
        "cannot fetch cluster info from peer urls: no cluster runs at {urls}; start its members, or found a new one with \
         --initial-cluster-state=new"
    )]
    NoAnswer { urls: String },
    #[error(
        "cannot fetch cluster info from peer urls: --initial-cluster names nobody to ask; give it as `etcdctl member add` printed \
         it, or found a new cluster with --initial-cluster-state=new"
    )]
    NobodyToAsk,
    #[error(
        "member {0} has already been bootstrapped: the others know it, but its data directory is empty; restore that, or remove \
         the member and add it anew under a new id (etcdctl member remove {0}; etcdctl member add)"
    )]
    AlreadyBootstrapped(MemberId),
    #[error(
        "member {0} was removed from the cluster, and its id never returns; add it anew (etcdctl member add)"
    )]
    Removed(MemberId),
    #[error(
        "cluster {found} runs at {urls}, and the flags describe another one, {asked}: to join it, add this member \
         (etcdctl member add) and give --initial-cluster-state=existing; to found one, name no member of another"
    )]
    AnotherCluster { found: ClusterId, asked: ClusterId, urls: String },
    #[error(
        "the cluster at {urls} was founded with --initial-cluster-token {found:?}, not {asked:?}: give its token, or none"
    )]
    AnotherToken { found: String, asked: String, urls: String },
    #[error(
        "error validating peerURLs {cluster}: member count is unequal: --initial-cluster names {asked}, the cluster has {found}; \
         give --initial-cluster as `etcdctl member add` printed it"
    )]
    CountUnequal { found: usize, asked: usize, cluster: String },
    #[error(
        "error validating peerURLs {cluster}: PeerURLs: no match found for existing member ({member}, {urls}); give \
         --initial-cluster as `etcdctl member add` printed it"
    )]
    NoMatch { member: MemberId, urls: String, cluster: String },
}

/// Decides who a member without data is to be. `patience` bounds each call to a peer.
pub async fn begin(
    bootstrap: &Bootstrap,
    name: &str,
    net: &Arc<dyn Net>,
    patience: Duration,
) -> Result<Identity, Error> {
    let others = bootstrap.members.iter().filter(|(other, _)| *other != name);
    let others: Vec<Vec<String>> = others.map(|(_, urls)| texts(urls)).collect();
    if bootstrap.state == ClusterState::New {
        let identity = founder(bootstrap, name);
        check_new(&identity, &ask(&others, net, patience).await)?;
        return Ok(identity);
    }
    if others.is_empty() {
        return Err(Error::NobodyToAsk);
    }
    let mut rounds = 1;
    loop {
        let answers = ask(&others, net, patience).await;
        match joined(bootstrap, name, &answers) {
            Err(Error::NoAnswer { .. } | Error::CountUnequal { .. } | Error::NoMatch { .. })
                if rounds < ROUNDS => {}
            decided => return decided,
        }
        rounds += 1;
        tokio::time::sleep(PAUSE).await;
    }
}

/// A member that has an identity but an empty log: either it was interrupted at its very beginning, or its log is lost.
/// The others know which: once they know its name, it had a log.
pub async fn check_unused(identity: &Identity, net: &Arc<dyn Net>, patience: Duration) -> Result<(), Error> {
    let others = identity.first_members.iter().filter(|(id, _)| **id != identity.member.0);
    let others: Vec<Vec<String>> = others.map(|(_, urls)| urls.clone()).collect();
    check_unknown(identity.member, &ask(&others, net, patience).await)
}

/// What runs at these members' addresses; those that do not answer are left out.
async fn ask(others: &[Vec<String>], net: &Arc<dyn Net>, patience: Duration) -> Vec<ClusterDescription> {
    let asked = others.iter().map(|urls| async {
        let mut client = JoiningClient::new(peers::connect_to_stranger(net.clone(), urls, patience));
        let answer = tokio::time::timeout(patience, client.describe(DescribeRequest {})).await;
        answer.ok()?.ok().map(|answer| answer.into_inner())
    });
    join_all(asked).await.into_iter().flatten().collect()
}

/// The identity of a member that its cluster starts with.
pub fn founder(bootstrap: &Bootstrap, name: &str) -> Identity {
    let ids = bootstrap.member_ids();
    let first_members =
        bootstrap.members.iter().map(|(name, urls)| (ids[name.as_str()].0, texts(urls))).collect();
    Identity {
        cluster: bootstrap.cluster_id(),
        member: *ids.get(name).expect("the bootstrap names this member, config checked it"),
        token: bootstrap.token.clone(),
        origin: Origin::Founded,
        first_members,
    }
}

/// A cluster is founded only where none runs, or where the same one is being founded.
fn check_new(identity: &Identity, answers: &[ClusterDescription]) -> Result<(), Error> {
    for answer in running(answers) {
        if answer.cluster != identity.cluster.0 {
            let (found, asked) = (ClusterId(answer.cluster), identity.cluster);
            return Err(Error::AnotherCluster { found, asked, urls: addresses(&answer.members) });
        }
    }
    check_unknown(identity.member, answers)
}

/// Nobody may have heard of this member's name, nor of its removal.
fn check_unknown(member: MemberId, answers: &[ClusterDescription]) -> Result<(), Error> {
    for answer in running(answers) {
        if answer.removed.contains(&member.0) {
            return Err(Error::Removed(member));
        }
        if answer.members.iter().any(|other| other.id == member.0 && !other.name.is_empty()) {
            return Err(Error::AlreadyBootstrapped(member));
        }
    }
    Ok(())
}

/// The identity that a running cluster has for this member: its id is the one that was given to its peer URLs.
fn joined(bootstrap: &Bootstrap, name: &str, answers: &[ClusterDescription]) -> Result<Identity, Error> {
    // Of all that answer, the one that has come furthest in the log knows best who the members are.
    let Some(cluster) = running(answers).max_by_key(|answer| answer.applied) else {
        let others = bootstrap.members.iter().filter(|(other, _)| *other != name);
        return Err(Error::NoAnswer { urls: listed(others.flat_map(|(_, urls)| texts(urls))) });
    };
    let urls = addresses(&cluster.members);
    if let Some(other) = running(answers).find(|answer| answer.cluster != cluster.cluster) {
        let (found, asked) = (ClusterId(cluster.cluster), ClusterId(other.cluster));
        return Err(Error::AnotherCluster { found, asked, urls });
    }
    if !token_fits(&bootstrap.token, &cluster.token) {
        let (found, asked) = (cluster.token.clone(), bootstrap.token.clone());
        return Err(Error::AnotherToken { found, asked, urls });
    }
    let (found, asked) = (cluster.members.len(), bootstrap.members.len());
    if found != asked {
        return Err(Error::CountUnequal { found, asked, cluster: urls });
    }
    let mut own = None;
    for member in &cluster.members {
        let matching = bootstrap.members.iter().find(|(_, urls)| same_doors(urls, &member.peer_urls));
        let Some((listed_name, _)) = matching else {
            let (member, peer_urls) = (MemberId(member.id), member.peer_urls.join(","));
            return Err(Error::NoMatch { member, urls: peer_urls, cluster: urls });
        };
        if listed_name == name {
            own = Some(MemberId(member.id));
        }
    }
    // Equally many on both sides, none twice, and each of theirs is among ours: so ours is among theirs.
    let member = own.expect("a match for every member of the cluster is one for this member");
    check_unknown(member, answers)?;
    let first_members = cluster.members.iter().map(|member| (member.id, member.peer_urls.clone())).collect();
    Ok(Identity {
        cluster: ClusterId(cluster.cluster),
        member,
        token: cluster.token.clone(),
        origin: Origin::Joined,
        first_members,
    })
}

/// The answers that speak of a cluster that was founded.
fn running(answers: &[ClusterDescription]) -> impl Iterator<Item = &ClusterDescription> {
    answers.iter().filter(|answer| !answer.members.is_empty())
}

fn same_doors(ours: &[Url], theirs: &[String]) -> bool {
    let theirs: Vec<Url> = theirs.iter().filter_map(|url| Url::peer(url).ok()).collect();
    let within =
        |some: &[Url], all: &[Url]| some.iter().all(|url| all.iter().any(|other| other.same_address(url)));
    within(ours, &theirs) && within(&theirs, ours)
}

fn texts(urls: &[Url]) -> Vec<String> {
    urls.iter().map(ToString::to_string).collect()
}

fn addresses(members: &[StoredMember]) -> String {
    listed(members.iter().flat_map(|member| member.peer_urls.iter().cloned()))
}

fn listed(urls: impl Iterator<Item = String>) -> String {
    urls.collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn urls(text: &str) -> Vec<Url> {
        text.split('+').map(|url| Url::peer(url).expect("a peer URL")).collect()
    }

    fn bootstrap(members: &[(&str, &str)], state: ClusterState, token: &str) -> Bootstrap {
        let members = members.iter().map(|(name, text)| ((*name).to_owned(), urls(text))).collect();
        Bootstrap { state, token: token.to_owned(), members }
    }

    fn member(id: u64, name: &str, url: &str) -> StoredMember {
        let peer_urls = url.split('+').map(str::to_owned).collect();
        StoredMember { id, name: name.to_owned(), peer_urls, ..StoredMember::default() }
    }

    fn description(cluster: u64, members: Vec<StoredMember>) -> ClusterDescription {
        ClusterDescription { cluster, token: "t".to_owned(), members, removed: vec![99], applied: 7 }
    }

    const A: &str = "http://localhost:1";
    const B: &str = "http://127.0.0.1:2+http://b:2";
    const C: &str = "http://c:3";

    fn flags(token: &str) -> Bootstrap {
        bootstrap(&[("a", A), ("b", B), ("c", C)], ClusterState::Existing, token)
    }

    #[test]
    fn a_member_that_joins_has_the_id_its_urls_were_given() {
        let cluster = description(
            5,
            vec![
                member(1, "one", "http://127.0.0.1:1"),
                member(2, "", "http://b:2+http://127.0.0.1:2"),
                member(3, "c", C),
            ],
        );
        for token in ["t", "etcd-cluster"] {
            let identity = joined(&flags(token), "b", std::slice::from_ref(&cluster)).expect("it is listed");
            assert_eq!(
                (identity.cluster, identity.member, identity.origin),
                (ClusterId(5), MemberId(2), Origin::Joined)
            );
            assert_eq!(identity.token, "t");
            assert_eq!(identity.first_members.len(), 3);
        }
        let refused = joined(&flags("another"), "b", std::slice::from_ref(&cluster));
        assert!(matches!(refused, Err(Error::AnotherToken { .. })), "{refused:?}");
        let returned = joined(&flags("t"), "c", std::slice::from_ref(&cluster));
        assert_eq!(returned, Err(Error::AlreadyBootstrapped(MemberId(3))));
    }

    #[test]
    fn a_list_that_is_not_the_clusters_is_refused() {
        let two = description(5, vec![member(1, "a", A), member(2, "", B)]);
        let refused = joined(&flags("t"), "b", &[two]).expect_err("it names a third");
        assert!(refused.to_string().contains("member count is unequal"), "{refused}");
        let elsewhere =
            description(5, vec![member(1, "a", A), member(2, "", B), member(3, "c", "http://c:4")]);
        let refused = joined(&flags("t"), "b", &[elsewhere]).expect_err("c is elsewhere");
        assert!(
            refused.to_string().contains("no match found for existing member (3, http://c:4)"),
            "{refused}"
        );
        let refused = joined(&flags("t"), "b", &[description(5, Vec::new())]);
        assert!(matches!(refused, Err(Error::NoAnswer { .. })), "{refused:?}");
        let here = || vec![member(1, "a", A), member(2, "", B), member(3, "c", C)];
        let refused = joined(&flags("t"), "b", &[description(5, here()), description(6, here())]);
        assert!(matches!(refused, Err(Error::AnotherCluster { .. })), "{refused:?}");
    }

    #[test]
    fn who_has_come_furthest_in_the_log_is_believed() {
        let old = description(5, vec![member(1, "a", A), member(3, "c", C)]);
        let mut new = description(5, vec![member(1, "a", A), member(2, "", B), member(3, "c", C)]);
        new.applied = 8;
        assert!(joined(&flags("t"), "b", &[old, new]).is_ok());
    }

    #[test]
    fn a_cluster_is_founded_by_members_that_nobody_knows() {
        let flags = bootstrap(&[("a", A), ("b", B)], ClusterState::New, "t");
        let identity = founder(&flags, "a");
        let [own, other] = ["a", "b"].map(|name| flags.member_ids()[name].0);
        let cluster = identity.cluster.0;
        let running = |own_name| description(cluster, vec![member(own, own_name, A), member(other, "b", B)]);
        assert_eq!(check_new(&identity, &[]), Ok(()));
        assert_eq!(check_new(&identity, &[description(1, Vec::new())]), Ok(()));
        assert_eq!(check_new(&identity, &[running("")]), Ok(()));
        let wiped = check_new(&identity, &[running("a")]).expect_err("it had a log");
        assert!(
            wiped
                .to_string()
                .starts_with(&format!("member {} has already been bootstrapped", identity.member))
        );
        let foreign = check_new(&identity, &[description(1, vec![member(other, "b", B)])]);
        assert!(matches!(foreign, Err(Error::AnotherCluster { .. })), "{foreign:?}");
        let mut gone = description(cluster, vec![member(other, "b", B)]);
        gone.removed = vec![own];
        assert_eq!(check_new(&identity, &[gone]), Err(Error::Removed(identity.member)));
    }
}
