//! Leases through etcd-client.

use std::time::Duration;

use etcd_client::{Error, LeaseGrantOptions, LeaseTimeToLiveOptions, PutOptions};
use tenure_foreign_clients::connect;

#[tokio::test]
async fn a_lease_is_granted_listed_and_revoked() -> Result<(), Error> {
    let mut client = connect().await?;
    let lease = client.lease_grant(100, None).await?;
    assert_eq!(lease.ttl(), 100);
    assert!(client.leases().await?.leases().iter().any(|listed| listed.id() == lease.id()));
    client.lease_revoke(lease.id()).await?;
    assert!(!client.leases().await?.leases().iter().any(|listed| listed.id() == lease.id()));
    let again = client.lease_revoke(lease.id()).await;
    let Err(Error::GRpcStatus(status)) = again else { panic!("{again:?}") };
    assert!(status.message().contains("requested lease not found"));
    Ok(())
}

#[tokio::test]
async fn the_client_may_choose_the_id_once() -> Result<(), Error> {
    let mut client = connect().await?;
    let chosen = LeaseGrantOptions::new().with_id(0x7e57_0001);
    assert_eq!(client.lease_grant(100, Some(chosen.clone())).await?.id(), 0x7e57_0001);
    let again = client.lease_grant(100, Some(chosen)).await;
    let Err(Error::GRpcStatus(status)) = again else { panic!("{again:?}") };
    assert!(status.message().contains("lease already exists"));
    client.lease_revoke(0x7e57_0001).await?;
    Ok(())
}

#[tokio::test]
async fn keys_go_with_their_lease() -> Result<(), Error> {
    let mut client = connect().await?;
    let lease = client.lease_grant(100, None).await?.id();
    for key in ["lease/keys/b", "lease/keys/a"] {
        client.put(key, "held", Some(PutOptions::new().with_lease(lease))).await?;
    }
    let told = client.lease_time_to_live(lease, Some(LeaseTimeToLiveOptions::new().with_keys())).await?;
    let mut keys = told.keys().to_vec();
    keys.sort();
    assert_eq!(keys, [b"lease/keys/a", b"lease/keys/b"]);
    assert_eq!(told.granted_ttl(), 100);
    assert!((1..=100).contains(&told.ttl()));
    client.lease_revoke(lease).await?;
    assert_eq!(client.get("lease/keys/a", None).await?.count(), 0);
    assert_eq!(client.lease_time_to_live(lease, None).await?.ttl(), -1);
    Ok(())
}

#[tokio::test]
async fn a_kept_lease_lives_and_a_neglected_one_ends() -> Result<(), Error> {
    let mut client = connect().await?;
    let kept = client.lease_grant(2, None).await?;
    let neglected = client.lease_grant(2, None).await?;
    client.put("lease/kept", "1", Some(PutOptions::new().with_lease(kept.id()))).await?;
    client.put("lease/neglected", "1", Some(PutOptions::new().with_lease(neglected.id()))).await?;
    let (mut keeper, mut answers) = client.lease_keep_alive(kept.id()).await?;
    // Until the neglected one is gone; that it takes too long is for the test's own bound to say.
    let watched = async {
        loop {
            keeper.keep_alive().await?;
            let answer = answers.message().await?.expect("the stream ended");
            assert_eq!((answer.id(), answer.ttl()), (kept.id(), kept.ttl()));
            if client.get("lease/neglected", None).await?.count() == 0 {
                return Ok::<(), Error>(());
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), watched).await.expect("the neglected lease never ended")?;
    assert_eq!(client.get("lease/kept", None).await?.count(), 1);
    client.lease_revoke(kept.id()).await?;
    Ok(())
}

#[tokio::test]
async fn there_is_no_keeping_what_is_not_there() -> Result<(), Error> {
    let mut client = connect().await?;
    // The library asks once on its own and takes the answer, TTL 0, for an error.
    let refused = client.lease_keep_alive(0x7e57_dead).await;
    assert!(refused.is_err(), "{refused:?}");
    Ok(())
}
