//! Locks and elections through etcd-client: the services wait on the client's behalf.

use etcd_client::{Client, Error, LockOptions, ProclaimOptions, ResignOptions};
use tenure_foreign_clients::connect;

async fn lease(client: &mut Client) -> Result<i64, Error> {
    Ok(client.lease_grant(60, None).await?.id())
}

fn said(error: Error) -> String {
    match error {
        Error::GRpcStatus(status) => format!("{:?}: {}", status.code(), status.message()),
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn a_lock_goes_from_one_to_the_next() -> Result<(), Error> {
    let (mut first, mut second) = (connect().await?, connect().await?);
    let (one, two) = (lease(&mut first).await?, lease(&mut second).await?);
    let held = first.lock("recipes/lock", Some(LockOptions::new().with_lease(one))).await?;
    assert_eq!(held.key(), format!("recipes/lock/{one:x}").as_bytes());
    let mut waiting = tokio::spawn(async move {
        let held = second.lock("recipes/lock", Some(LockOptions::new().with_lease(two))).await?;
        second.unlock(held.key()).await?;
        Ok::<_, Error>(held.header().unwrap().revision())
    });
    let early = tokio::time::timeout(std::time::Duration::from_millis(300), &mut waiting).await;
    assert!(early.is_err(), "the second has the lock, and the first as well");
    let released = first.unlock(held.key()).await?.header().unwrap().revision();
    assert!(waiting.await.unwrap()? >= released);
    Ok(())
}

#[tokio::test]
async fn a_lock_on_a_lease_that_is_not_there_is_refused() -> Result<(), Error> {
    let mut client = connect().await?;
    let refused = client.lock("recipes/refused", Some(LockOptions::new().with_lease(987_654))).await;
    assert_eq!(said(refused.unwrap_err()), "Unknown: etcdserver: requested lease not found");
    Ok(())
}

#[tokio::test]
async fn leaders_are_observed_in_their_order() -> Result<(), Error> {
    let (mut first, mut second, mut observer) = (connect().await?, connect().await?, connect().await?);
    let (one, two) = (lease(&mut first).await?, lease(&mut second).await?);
    let mut seen = observer.observe("recipes/election").await?;
    let elected = first.campaign("recipes/election", "first", one).await?;
    let leader = elected.leader().unwrap().clone();
    let next = tokio::spawn(async move { second.campaign("recipes/election", "second", two).await });
    first.proclaim("still first", Some(ProclaimOptions::new().with_leader(leader.clone()))).await?;
    first.resign(Some(ResignOptions::new().with_leader(leader.clone()))).await?;
    let elected = next.await.unwrap()?;
    assert!(elected.leader().unwrap().rev() > leader.rev());
    for value in ["first", "still first", "second"] {
        let told = seen.message().await?.unwrap();
        assert_eq!(told.kv().unwrap().value_str()?, value);
    }
    let stale = first.proclaim("again", Some(ProclaimOptions::new().with_leader(leader))).await;
    assert_eq!(said(stale.unwrap_err()), "Unknown: election: not leader");
    first.resign(Some(ResignOptions::new().with_leader(elected.leader().unwrap().clone()))).await?;
    assert_eq!(said(first.leader("recipes/election").await.unwrap_err()), "Unknown: election: no leader");
    Ok(())
}
