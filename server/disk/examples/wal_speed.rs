//! Prints what the log does on the disk under a directory: entries a second, time per batch, CPU per entry, for batches of 1,
//! 64 and 256 entries of 256 bytes, each awaited before the next.
//!
//! `cargo run --profile quick -p tenure-disk --example wal_speed -- <empty directory> [seconds]`
#![allow(clippy::print_stdout)]

use std::error::Error;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tenure_disk::Files;
use tenure_disk::wal::{LogId, Wal, WalOptions};

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let home = arguments.next().ok_or("name an empty directory")?;
    let seconds: f64 = arguments.next().map_or(Ok(3.0), |text| text.parse())?;
    println!("{:>6} {:>11} {:>9} {:>9} {:>13}", "batch", "entries/s", "p50 us", "p99 us", "CPU us/entry");
    for batch in [1, 64, 256] {
        measure(&Path::new(&home).join(batch.to_string()), batch, Duration::from_secs_f64(seconds))?;
    }
    Ok(())
}

fn measure(dir: &Path, batch: u64, time: Duration) -> Result<(), Box<dyn Error>> {
    let wal = Wal::open(Arc::new(Files), dir, WalOptions::default())?;
    let payload = Bytes::from(vec![7; 256]);
    let id = |index| LogId { term: 1, node: 1, index };
    let (began, cpu) = (Instant::now(), cpu_us()?);
    let mut batches = Vec::new();
    let mut next = 1;
    while began.elapsed() < time {
        let (done, waited) = sync_channel(1);
        let asked = Instant::now();
        let entries = (next..next + batch).map(|index| (id(index), payload.clone())).collect();
        wal.append(entries, move |outcome| done.send(outcome).expect("it is waited for"));
        waited.recv()??;
        batches.push(asked.elapsed());
        next += batch;
        // As a server does: keep some, purge the rest.
        if next % 100_000 < batch && next > 200_000 {
            wal.purge(id(next - 100_000));
        }
    }
    let entries = (next - 1) as f64;
    let per_second = entries / began.elapsed().as_secs_f64();
    let cpu_each = (cpu_us()? - cpu) / entries;
    batches.sort_unstable();
    let at = |percent: usize| batches[(batches.len() - 1) * percent / 100].as_micros();
    println!("{batch:>6} {per_second:>11.0} {:>9} {:>9} {cpu_each:>13.2}", at(50), at(99));
    wal.close();
    Ok(())
}

/// User and system time of this process, all threads.
fn cpu_us() -> Result<f64, Box<dyn Error>> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    let ticks: Vec<f64> = fields.skip(11).take(2).map(str::parse).collect::<Result<_, _>>()?;
    // The kernel counts in hundredths of a second.
    Ok(ticks.iter().sum::<f64>() * 10_000.0)
}
