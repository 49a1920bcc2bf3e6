//! Why a lock alone protects nothing, and what does. A worker takes a lock, and then sleeps for too long: a long collection of garbage, a
//! paused machine. Meanwhile the lock is given to another, which does the work. When the first wakes up it still believes that it
//! holds the lock, and writes.
//!
//! Two ways to refuse it, by the token that came with the lock; tokens of later holders are greater:
//!
//! - in PostgreSQL, a row remembers the greatest token that wrote it, and an update with a smaller one finds no row;
//! - in Tenure or any etcd, the guard goes along with the write as a compare of the transaction.
//!
//! Needs `psql` and the usual variables (PGHOST, PGUSER, ...) for the first part; `pg_virtualenv` gives both:
//!
//! ```text
//! tenure cluster --members 1
//! pg_virtualenv cargo run --bin fenced_lock
//! ```

#![allow(clippy::print_stdout)]

use std::process::Command;

use tenure_client::{Client, Error, Locked};

const TABLE: &str = "
    CREATE TABLE IF NOT EXISTS account (id int PRIMARY KEY, balance int NOT NULL, token bigint NOT NULL);
    INSERT INTO account VALUES (1, 0, 0) ON CONFLICT (id) DO UPDATE SET balance = 0, token = 0;";

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Outcome<()> {
    let endpoints = std::env::var("TENURE_ENDPOINTS").unwrap_or_else(|_| "127.0.0.1:2379".into());
    let client = Client::connect(&endpoints)?;
    psql(TABLE)?;

    let first = client.lock("account/1").acquire().await?;
    println!("the first worker holds the lock, token {}", first.token());

    // It sleeps, and for all that others know it is dead. An operator does not want to wait for its lease.
    take_away(&client, &first).await?;
    let second = client.lock("account/1").acquire().await?;
    println!("the second worker holds the lock, token {}", second.token());
    assert!(deposit(10, &second)?, "the present holder may write");
    second.kv().put("account/1", "10").await?;
    println!("the second worker has written");

    // The first wakes up, and writes without looking.
    match deposit(1_000, &first)? {
        true => println!("PostgreSQL took the write of a stale holder"),
        false => println!("PostgreSQL refused the first worker"),
    }
    match first.kv().put("account/1", "1000").await {
        Err(Error::Stale(why)) => println!("Tenure refused the first worker: {why}"),
        other => println!("Tenure answered a stale holder: {other:?}"),
    }

    let balance = psql("SELECT balance FROM account WHERE id = 1")?;
    let found = client.kv().get("account/1").await?;
    let kept = found.first().map(|pair| String::from_utf8_lossy(&pair.value).into_owned());
    println!("balance in PostgreSQL: {balance}, in Tenure: {}", kept.unwrap_or_default());
    second.release().await?;
    Ok(())
}

/// The whole trick: who comes with a smaller token than the row has seen finds no row to change.
fn deposit(amount: i32, lock: &Locked) -> Outcome<bool> {
    let token = lock.token();
    let changed = psql(&format!(
        "UPDATE account SET balance = balance + {amount}, token = {token}
         WHERE id = 1 AND token <= {token} RETURNING 1"
    ))?;
    Ok(!changed.is_empty())
}

/// Runs statements, and gives what they return.
fn psql(statements: &str) -> Outcome<String> {
    let output = Command::new("psql").args(["-XqtA", "-v", "ON_ERROR_STOP=1", "-c", statements]).output()?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into());
    }
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}

async fn take_away(client: &Client, lock: &Locked) -> Result<(), Error> {
    use tenure_client::proto::tenure::v1::BreakLockRequest;
    let request = BreakLockRequest {
        name: lock.name().to_owned(),
        token: lock.token(),
        reason: "it does not answer".into(),
        ..BreakLockRequest::default()
    };
    client.operate().break_lock(request).await.map(|_| ())
}
