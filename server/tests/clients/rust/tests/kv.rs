//! Puts, reads, deletes, transactions and compaction through etcd-client.

use etcd_client::{
    Compare, CompareOp, DeleteOptions, Error, GetOptions, PutOptions, SortOrder, SortTarget, Txn, TxnOp,
    TxnOpResponse,
};
use tenure_foreign_clients::connect;

fn values(pairs: &[etcd_client::KeyValue]) -> Vec<&str> {
    pairs.iter().map(|pair| pair.value_str().unwrap()).collect()
}

#[tokio::test]
async fn a_put_returns_the_pair_before_on_request() -> Result<(), Error> {
    let mut client = connect().await?;
    client.put("kv/put", "1", None).await?;
    let plain = client.put("kv/put", "2", None).await?;
    assert!(plain.prev_key().is_none());
    let asked = client.put("kv/put", "3", Some(PutOptions::new().with_prev_key())).await?;
    assert_eq!(asked.prev_key().unwrap().value(), b"2");
    assert!(asked.header().unwrap().revision() > plain.header().unwrap().revision());
    let read = client.get("kv/put", None).await?;
    assert_eq!(read.kvs()[0].version(), 3);
    Ok(())
}

#[tokio::test]
async fn a_put_may_leave_the_value_as_it_is() -> Result<(), Error> {
    let mut client = connect().await?;
    client.put("kv/ignore", "kept", None).await?;
    client.put("kv/ignore", "", Some(PutOptions::new().with_ignore_value())).await?;
    let read = client.get("kv/ignore", None).await?;
    assert_eq!((read.kvs()[0].value(), read.kvs()[0].version()), (b"kept".as_slice(), 2));
    Ok(())
}

#[tokio::test]
async fn a_range_is_ordered_limited_and_counted() -> Result<(), Error> {
    let mut client = connect().await?;
    for (key, value) in [("c", "1"), ("a", "3"), ("b", "2")] {
        client.put(format!("kv/range/{key}"), value, None).await?;
    }
    let prefix = || GetOptions::new().with_prefix();
    let all = client.get("kv/range/", Some(prefix())).await?;
    assert_eq!((values(all.kvs()), all.count(), all.more()), (vec!["3", "2", "1"], 3, false));
    let limited = client.get("kv/range/", Some(prefix().with_limit(2))).await?;
    assert_eq!((values(limited.kvs()), limited.count(), limited.more()), (vec!["3", "2"], 3, true));
    let sorted =
        client.get("kv/range/", Some(prefix().with_sort(SortTarget::Value, SortOrder::Ascend))).await?;
    assert_eq!(values(sorted.kvs()), ["1", "2", "3"]);
    let newest =
        client.get("kv/range/", Some(prefix().with_sort(SortTarget::Mod, SortOrder::Descend))).await?;
    assert_eq!(values(newest.kvs()), ["2", "3", "1"]);
    let counted = client.get("kv/range/", Some(prefix().with_count_only())).await?;
    assert_eq!((counted.kvs().len(), counted.count()), (0, 3));
    let keys = client.get("kv/range/", Some(prefix().with_keys_only())).await?;
    assert!(keys.kvs().iter().all(|pair| pair.value().is_empty()) && keys.kvs().len() == 3);
    let part = client.get("kv/range/a", Some(GetOptions::new().with_range("kv/range/c"))).await?;
    assert_eq!(values(part.kvs()), ["3", "2"]);
    let local = client.get("kv/range/a", Some(GetOptions::new().with_serializable())).await?;
    assert_eq!(values(local.kvs()), ["3"]);
    let recent = GetOptions::new().with_prefix().with_min_mod_revision(all.kvs()[0].mod_revision());
    assert_eq!(values(client.get("kv/range/", Some(recent)).await?.kvs()), ["3", "2"]);
    Ok(())
}

#[tokio::test]
async fn the_past_can_be_read() -> Result<(), Error> {
    let mut client = connect().await?;
    let first = client.put("kv/past", "old", None).await?.header().unwrap().revision();
    client.put("kv/past", "new", None).await?;
    let then = client.get("kv/past", Some(GetOptions::new().with_revision(first))).await?;
    assert_eq!(values(then.kvs()), ["old"]);
    let future = client.get("kv/past", Some(GetOptions::new().with_revision(i64::MAX))).await;
    assert!(refusal(future.unwrap_err()).contains("required revision is a future revision"));
    Ok(())
}

#[tokio::test]
async fn a_delete_tells_what_it_removed() -> Result<(), Error> {
    let mut client = connect().await?;
    for key in ["kv/del/1", "kv/del/2", "kv/del/3"] {
        client.put(key, key, None).await?;
    }
    assert_eq!(client.delete("kv/del/none", None).await?.deleted(), 0);
    let one = client.delete("kv/del/1", Some(DeleteOptions::new().with_prev_key())).await?;
    assert_eq!((one.deleted(), values(one.prev_kvs())), (1, vec!["kv/del/1"]));
    let rest = client.delete("kv/del/", Some(DeleteOptions::new().with_prefix())).await?;
    assert_eq!((rest.deleted(), rest.prev_kvs().len()), (2, 0));
    Ok(())
}

#[tokio::test]
async fn a_transaction_takes_the_branch_that_its_comparison_says() -> Result<(), Error> {
    let mut client = connect().await?;
    client.put("kv/txn", "1", None).await?;
    let swap = |from: &str, to: &str| {
        Txn::new()
            .when([
                Compare::value("kv/txn", CompareOp::Equal, from),
                Compare::version("kv/txn", CompareOp::Greater, 0),
            ])
            .and_then([TxnOp::put("kv/txn", to, None), TxnOp::get("kv/txn", None)])
            .or_else([TxnOp::get("kv/txn", None)])
    };
    let done = client.txn(swap("1", "2")).await?;
    assert!(done.succeeded());
    let [TxnOpResponse::Put(_), TxnOpResponse::Get(read)] = &done.op_responses()[..] else {
        panic!("{done:?}")
    };
    assert_eq!(values(read.kvs()), ["2"]);
    let refused = client.txn(swap("1", "3")).await?;
    assert!(!refused.succeeded());
    let [TxnOpResponse::Get(read)] = &refused.op_responses()[..] else { panic!("{refused:?}") };
    assert_eq!(values(read.kvs()), ["2"]);
    Ok(())
}

#[tokio::test]
async fn a_transaction_may_hold_another() -> Result<(), Error> {
    let mut client = connect().await?;
    let inner = Txn::new()
        .when([Compare::create_revision("kv/nested/x", CompareOp::Equal, 0)])
        .and_then([TxnOp::put("kv/nested/x", "made", None)])
        .or_else([TxnOp::delete("kv/nested/x", None)]);
    let outer = Txn::new().and_then([TxnOp::txn(inner), TxnOp::put("kv/nested/y", "made", None)]);
    let done = client.txn(outer).await?;
    let [TxnOpResponse::Txn(inner), TxnOpResponse::Put(_)] = &done.op_responses()[..] else {
        panic!("{done:?}")
    };
    assert!(inner.succeeded());
    let pairs = client.get("kv/nested/", Some(GetOptions::new().with_prefix())).await?;
    let revisions: Vec<i64> = pairs.kvs().iter().map(|pair| pair.mod_revision()).collect();
    assert_eq!(revisions, [done.header().unwrap().revision(); 2]);
    Ok(())
}

#[tokio::test]
async fn putting_a_key_twice_in_a_transaction_is_refused() -> Result<(), Error> {
    let mut client = connect().await?;
    let twice = Txn::new().and_then([TxnOp::put("kv/twice", "1", None), TxnOp::put("kv/twice", "2", None)]);
    let refused = client.txn(twice).await.unwrap_err();
    assert!(refusal(refused).contains("duplicate key given in txn request"));
    assert_eq!(client.get("kv/twice", None).await?.count(), 0);
    Ok(())
}

fn refusal(error: Error) -> String {
    match error {
        Error::GRpcStatus(status) => status.message().to_owned(),
        other => panic!("not a refusal by the server: {other:?}"),
    }
}
