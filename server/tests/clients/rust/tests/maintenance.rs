//! The members and the state of a server, through etcd-client.

use etcd_client::{AlarmAction, AlarmType, Error};
use tenure_foreign_clients::connect;

#[tokio::test]
async fn the_status_names_the_leader_and_the_log() -> Result<(), Error> {
    let mut client = connect().await?;
    let before = client.status().await?;
    client.put("maintenance/status", "1", None).await?;
    let after = client.status().await?;
    assert_eq!(after.leader(), after.header().unwrap().member_id());
    assert!(after.raft_index() > before.raft_index());
    assert!(after.raft_applied_index() <= after.raft_index());
    assert!(after.raft_term() > 0 && after.db_size() > 0);
    assert!(after.version().starts_with("3."), "{}", after.version());
    assert!(after.errors().is_empty(), "{:?}", after.errors());
    Ok(())
}

#[tokio::test]
async fn there_is_one_member_and_it_is_the_leader() -> Result<(), Error> {
    let mut client = connect().await?;
    let list = client.member_list().await?;
    let [member] = list.members() else { panic!("{list:?}") };
    assert_eq!(member.id(), client.status().await?.leader());
    assert_eq!(member.name(), "default");
    assert!(!member.client_urls().is_empty() && !member.peer_urls().is_empty());
    Ok(())
}

#[tokio::test]
async fn there_is_no_alarm() -> Result<(), Error> {
    let mut client = connect().await?;
    let alarms = client.alarm(AlarmAction::Get, AlarmType::None, None).await?;
    assert!(alarms.alarms().is_empty());
    Ok(())
}

#[tokio::test]
async fn the_hash_of_a_revision_does_not_change() -> Result<(), Error> {
    let mut client = connect().await?;
    let revision = client.put("maintenance/hash", "1", None).await?.header().unwrap().revision();
    let hash = client.hash_kv(revision).await?.hash();
    client.put("maintenance/hash", "2", None).await?;
    assert_eq!(client.hash_kv(revision).await?.hash(), hash);
    Ok(())
}

#[tokio::test]
async fn defragmenting_loses_nothing() -> Result<(), Error> {
    let mut client = connect().await?;
    client.put("maintenance/defragment", "kept", None).await?;
    client.defragment().await?;
    assert_eq!(client.get("maintenance/defragment", None).await?.kvs()[0].value(), b"kept");
    Ok(())
}
