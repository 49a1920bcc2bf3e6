//! `tenure-bench`: a load generator for any etcd v3 endpoint, and an interleaved comparison of two servers.
//!
//! ```text
//! main          flags in, exit code out
//! flags         the command line                     compare      two servers in turn, workload by workload
//! workload/     one file for each workload           comparison   medians, ratios, their table
//! session       what a workload is given             plan         which workloads at which sizes
//! run           turns, warm-up, deadline             restart      load, kill, start again
//! span          time, and what it cost both          failover     kill the leader, and see how long nothing answers
//! tally         counting while it runs               probe        calls by the clock, and the gaps between answers
//! outcome       the numbers of one workload          catch_up     a follower misses much, and comes back
//!                                                    cluster      the servers of one side
//!                                                    status       who leads, how far the log is
//!                                                    command      a server's command line and its placeholders
//!                                                    child        started processes, and that they end with us
//! report table  how numbers are shown                grpc failure data process progress stop: the seams
//! ```
//!
//! Exit codes: 0 measured; 1 errors, nothing done, or a promise seen broken; 2 could not be run.

mod catch_up;
mod child;
mod cluster;
mod command;
mod compare;
mod comparison;
mod data;
mod failover;
mod failure;
mod flags;
mod grpc;
mod outcome;
mod plan;
mod probe;
mod process;
mod progress;
mod report;
mod restart;
mod run;
mod session;
mod span;
mod status;
mod stop;
mod table;
mod tally;
mod workload;

use std::process::ExitCode;

use clap::Parser;
use tokio::runtime::{Builder, Runtime};

use crate::compare::Compare;
use crate::failure::Failure;
use crate::flags::{Common, Flags};
use crate::stop::Stop;
use crate::workload::Workload;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const BAD: u8 = 1;
const NOT_RUN: u8 = 2;

fn main() -> ExitCode {
    child::kill_all_on_panic();
    let done = match Flags::parse().command.into_single() {
        Ok((common, workload)) => {
            runtime(common.threads).and_then(|rt| rt.block_on(single(&common, &workload)))
        }
        Err(compare) => runtime(compare.threads).and_then(|rt| rt.block_on(both(&compare))),
    };
    let complaint = match done {
        Ok(None) => return ExitCode::SUCCESS,
        Ok(Some(complaint)) => (BAD, complaint),
        Err(failure) => (NOT_RUN, failure.to_string()),
    };
    report::remark(&format!("tenure-bench: {}", complaint.1));
    ExitCode::from(complaint.0)
}

/// One thread by default: on few cores, handing requests between threads costs more than it gives.
fn runtime(threads: u32) -> Result<Runtime, Failure> {
    let mut builder = if threads > 1 { Builder::new_multi_thread() } else { Builder::new_current_thread() };
    if threads > 1 {
        builder.worker_threads(threads as usize);
    }
    builder.enable_all().build().map_err(|e| Failure::setup(format!("start the runtime: {e}")))
}

async fn single(common: &Common, workload: &Workload) -> Result<Option<String>, Failure> {
    let stop = Stop::on_signals().map_err(|e| Failure::setup(format!("listen for signals: {e}")))?;
    let session = common.session(stop).map_err(Failure::setup)?;
    let outcome = workload.run(&session).await?;
    report::print(&if common.json { report::json(&outcome) } else { report::text(&outcome) });
    Ok(outcome.complaint(common.max_error_share))
}

async fn both(compare: &Compare) -> Result<Option<String>, Failure> {
    let stop = Stop::on_signals().map_err(|e| Failure::setup(format!("listen for signals: {e}")))?;
    let (comparison, complaint) = compare.run(stop).await?;
    report::print(&comparison.show(compare.format()));
    Ok(complaint)
}
