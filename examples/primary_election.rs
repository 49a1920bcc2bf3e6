//! One primary among several nodes, as in a replicated database: who leads writes, the others stand by; a primary that dies is
//! followed, and one that is asked to hand over does so without a gap.
//!
//! Start three in three terminals, then kill the primary, or move it with `tenure transfer db/main --to n2`:
//!
//! ```text
//! tenure cluster --members 1
//! cargo run --bin primary_election n1
//! cargo run --bin primary_election n2
//! cargo run --bin primary_election n3
//! ```

#![allow(clippy::print_stdout)]

use std::time::Duration;

use tenure_client::{Client, Error, Term};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    let node = std::env::args().nth(1).unwrap_or_else(|| "n1".into());
    let endpoints = std::env::var("TENURE_ENDPOINTS").unwrap_or_else(|_| "127.0.0.1:2379".into());
    let client = Client::connect(&endpoints)?;

    let candidate = client.election("db/main").candidate(&node).ttl(Duration::from_secs(5));
    loop {
        println!("{node}: standing by");
        match candidate.run(|term| serve_as_primary(&node, term)).await {
            // Handed over, or told to stop: stand again.
            Ok(()) => {}
            Err(Error::Lost(why)) => println!("{node}: not primary any more: {why}"),
            Err(error) => return Err(error),
        }
    }
}

/// Returns as soon as another node is to be primary. What is written here is refused once that is so, even if this process was
/// asleep meanwhile and has not noticed.
async fn serve_as_primary(node: &str, term: Term) {
    println!("{node}: primary, epoch {}, token {}", term.epoch(), term.token());
    let mut count = 0_u64;
    loop {
        tokio::select! {
            why = term.lost() => return println!("{node}: stopping: {why}"),
            handover = term.handover() => {
                return println!("{node}: handing over to {}", handover.to_candidate_id);
            }
            () = tokio::time::sleep(Duration::from_millis(100)) => {
                count += 1;
                match term.kv().put("db/main/written", format!("{node} {count}")).await {
                    Ok(_) => {}
                    Err(Error::Stale(why)) => return println!("{node}: {why}"),
                    Err(error) => println!("{node}: not written this time: {error}"),
                }
            }
        }
    }
}
