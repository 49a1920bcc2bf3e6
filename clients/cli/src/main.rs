//! `tenure`: the command line for operators. One noun, one file: this one reads what was asked for, hands it to the noun,
//! and gives the exit code. What a noun has to do with the cluster it does as any other client.
//!
//! ```text
//! snapshot   backups: save (online), status, restore (offline)     endpoints   the members to ask
//! cluster    members on one machine, for trying things             progress    the bar of long work
//! output     how results are printed                               failure     what went wrong, and its exit code
//! ```

mod cluster;
mod endpoints;
mod failure;
mod output;
mod progress;
mod snapshot;

use std::io::Write;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::failure::Failure;

const AFTER: &str = "\
Exit codes:
  0  done
  1  could not be done; standard error says why
  2  not understood: no such command or flag
  3  no member answered
  4  the backup is damaged, or is none

Examples:
  tenure cluster
  tenure snapshot save backup.db --endpoints 10.0.0.1:2379,10.0.0.2:2379
  tenure snapshot status backup.db -o json
  tenure snapshot restore backup.db --name a --data-dir /var/lib/tenure \\
      --initial-cluster a=http://10.0.1.1:2380,b=http://10.0.1.2:2380,c=http://10.0.1.3:2380 \\
      --initial-advertise-peer-urls http://10.0.1.1:2380";

/// Operates Tenure: backups and their restoration, and clusters on one machine to try things on.
#[derive(Parser)]
#[command(name = "tenure", version, after_help = AFTER)]
struct Tenure {
    #[command(subcommand)]
    noun: Noun,
}

#[derive(Subcommand)]
enum Noun {
    /// Save the whole state of a cluster to a file, look at such a file, make a new cluster from it
    #[command(subcommand)]
    Snapshot(snapshot::Snapshot),
    /// Run a cluster of several members on this machine until Ctrl-C
    Cluster(cluster::Cluster),
}

fn main() -> ExitCode {
    let Tenure { noun } = Tenure::parse();
    let done = runtime().and_then(|runtime| {
        runtime.block_on(async {
            match noun {
                Noun::Snapshot(snapshot) => snapshot.run().await,
                Noun::Cluster(cluster) => cluster.run().await,
            }
        })
    });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            // Where even this cannot be written, the exit code has to do.
            let _ = writeln!(std::io::stderr(), "tenure: {failure}");
            failure.exit_code()
        }
    }
}

fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(|error| Failure::failed(format!("cannot start the runtime: {error}")))
}
