//! Watches through etcd-client.

use std::time::Duration;

use etcd_client::{Client, Error, EventType, WatchFilterType, WatchOptions, WatchResponse, WatchStream};
use tenure_foreign_clients::connect;

type Told = (EventType, String, String);

/// The next response; a server that says nothing fails the test instead of hanging it.
async fn next(stream: &mut WatchStream) -> Result<WatchResponse, Error> {
    let message = tokio::time::timeout(Duration::from_secs(30), stream.message());
    Ok(message.await.expect("no response within 30 s")?.expect("the stream ended"))
}

/// So many events, in however many responses.
async fn events(stream: &mut WatchStream, count: usize) -> Result<Vec<Told>, Error> {
    let mut told = Vec::new();
    while told.len() < count {
        for event in next(stream).await?.events() {
            let pair = event.kv().unwrap();
            told.push((event.event_type(), pair.key_str()?.to_owned(), pair.value_str()?.to_owned()));
        }
    }
    Ok(told)
}

fn told(kind: EventType, key: &str, value: &str) -> Told {
    (kind, key.to_owned(), value.to_owned())
}

async fn put(client: &mut Client, key: &str, value: &str) -> Result<i64, Error> {
    Ok(client.put(key, value, None).await?.header().unwrap().revision())
}

#[tokio::test]
async fn a_watch_tells_what_happens_from_now_on() -> Result<(), Error> {
    let mut client = connect().await?;
    put(&mut client, "watch/now/a", "before").await?;
    let mut stream = client.watch("watch/now/", Some(WatchOptions::new().with_prefix())).await?;
    let created = next(&mut stream).await?;
    assert!(created.created() && created.events().is_empty());
    put(&mut client, "watch/now/a", "1").await?;
    put(&mut client, "watch/now/b", "2").await?;
    client.delete("watch/now/a", None).await?;
    let expected = [
        told(EventType::Put, "watch/now/a", "1"),
        told(EventType::Put, "watch/now/b", "2"),
        told(EventType::Delete, "watch/now/a", ""),
    ];
    assert_eq!(events(&mut stream, 3).await?, expected);
    Ok(())
}

#[tokio::test]
async fn a_watch_tells_history_and_then_goes_on() -> Result<(), Error> {
    let mut client = connect().await?;
    let first = put(&mut client, "watch/past", "1").await?;
    put(&mut client, "watch/past", "2").await?;
    let options = WatchOptions::new().with_start_revision(first).with_prev_key();
    let mut stream = client.watch("watch/past", Some(options)).await?;
    assert!(next(&mut stream).await?.created());
    let history = [told(EventType::Put, "watch/past", "1"), told(EventType::Put, "watch/past", "2")];
    assert_eq!(events(&mut stream, 2).await?, history);
    put(&mut client, "watch/past", "3").await?;
    let response = next(&mut stream).await?;
    let event = &response.events()[0];
    assert_eq!(
        (event.kv().unwrap().value(), event.prev_kv().unwrap().value()),
        (b"3".as_slice(), b"2".as_slice())
    );
    Ok(())
}

#[tokio::test]
async fn filters_leave_events_out() -> Result<(), Error> {
    let mut client = connect().await?;
    let options = WatchOptions::new().with_filters([WatchFilterType::NoPut]);
    let mut stream = client.watch("watch/filter", Some(options)).await?;
    assert!(next(&mut stream).await?.created());
    put(&mut client, "watch/filter", "1").await?;
    client.delete("watch/filter", None).await?;
    assert_eq!(events(&mut stream, 1).await?, [told(EventType::Delete, "watch/filter", "")]);
    Ok(())
}

#[tokio::test]
async fn one_stream_carries_several_watches() -> Result<(), Error> {
    let mut client = connect().await?;
    let mut stream = client.watch("watch/many/a", Some(WatchOptions::new().with_watch_id(7))).await?;
    let first = next(&mut stream).await?;
    assert!(first.created());
    assert_eq!(first.watch_id(), 7);
    stream.watch("watch/many/b", Some(WatchOptions::new().with_watch_id(9))).await?;
    assert_eq!(next(&mut stream).await?.watch_id(), 9);
    put(&mut client, "watch/many/b", "1").await?;
    assert_eq!(next(&mut stream).await?.watch_id(), 9);
    stream.cancel(9).await?;
    let canceled = next(&mut stream).await?;
    assert!(canceled.canceled());
    assert_eq!(canceled.watch_id(), 9);
    put(&mut client, "watch/many/b", "2").await?;
    put(&mut client, "watch/many/a", "3").await?;
    let response = next(&mut stream).await?;
    assert_eq!((response.watch_id(), response.events()[0].kv().unwrap().value()), (7, b"3".as_slice()));
    Ok(())
}

#[tokio::test]
async fn progress_is_told_on_request() -> Result<(), Error> {
    let mut client = connect().await?;
    let mut stream = client.watch("watch/progress", None).await?;
    assert!(next(&mut stream).await?.created());
    let revision = put(&mut client, "watch/other", "1").await?;
    // A server that has not caught up may stay silent or name an earlier revision; then a client asks again.
    loop {
        stream.request_progress().await?;
        let message = tokio::time::timeout(Duration::from_secs(1), stream.message()).await;
        let Ok(response) = message else { continue };
        let response = response?.expect("the stream ended");
        assert!(response.events().is_empty() && !response.canceled(), "{response:?}");
        if response.header().unwrap().revision() >= revision {
            return Ok(());
        }
    }
}
