//! `tenure`: the command line. One verb or noun, one file: this one reads what was asked for, hands it on, and gives the exit
//! code. What a verb has to do with the cluster it does as any other client.
//!
//! ```text
//! keys  txn  lease  watching    keys and values                   lock  elect  register   a command under something held
//! ls  show  why  act            who holds what, and force         running  leash  signals the command itself
//! member  snapshot  cluster     the cluster                       endpoints               the members to ask
//! migrate                       from etcd                         onlooker                what a terminal shows of waiting
//! output  progress  span        how things are printed            failure                 what went wrong, and its exit code
//! whoami                        what a process says of itself
//! ```

mod act;
mod cluster;
mod elect;
mod endpoints;
mod failure;
mod keys;
mod lease;
mod leash;
mod lock;
mod ls;
mod member;
mod migrate;
mod onlooker;
mod output;
mod progress;
mod project;
mod register;
mod running;
mod show;
mod signals;
mod snapshot;
mod span;
mod txn;
mod watching;
mod whoami;
mod why;

use std::io::Write;
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};
use clap_complete::Shell;

use crate::failure::Failure;

const AFTER: &str = "\
Exit codes:
  0    done
  1    could not be done; standard error says why
  2    not understood: no such command or flag
  3    no member answered
  4    the backup or snapshot is damaged, or is none
  75   lock, sem, elect: not acquired, so the command was not run
  76   lock, sem, elect, register: lost while the command ran
  77   lock, sem, elect, register: no member answered, so the command was not run
  Else lock, sem, elect and register give the command's own.

Examples:
  tenure cluster
  tenure put config/colour blue
  tenure lock jobs/nightly -- ./nightly.sh
  tenure why jobs/nightly
  tenure elect db/main --value 10.0.0.1:5432 -- ./serve.sh
  tenure register web --port 8080 -- ./server
  tenure snapshot save backup.db --endpoints 10.0.0.1:2379,10.0.0.2:2379
  tenure migrate --from 10.0.0.9:2379
  source <(tenure completion bash)";

/// Tenure from the command line: keys, locks, elections, services, and the cluster itself.
#[derive(Parser)]
#[command(name = "tenure", version, after_help = AFTER)]
struct Tenure {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Run a command while a lock is held
    Lock(lock::LockCommand),
    /// Run a command while some permits of a lock are held
    Sem(lock::Sem),
    /// Run a command while this process leads
    Elect(elect::Elect),
    /// Run a command that others find in the registry
    Register(register::Register),
    /// List locks, elections, services, sessions
    Ls(ls::Ls),
    /// Show a lock, an election, a service in full
    Show(show::Show),
    /// Say in a paragraph why a lock is not free, or an election where it is
    Why(why::Why),
    /// Show who waits for a lock
    Queue(show::Queue),
    /// Show an election's latest terms
    History(show::History),
    /// End somebody's grant of a lock
    Break(act::Break),
    /// Hand an election over to another candidate
    Transfer(act::Transfer),
    /// Send nothing new to an instance
    Drain(act::Drain),
    /// Send to an instance again
    Undrain(act::Undrain),
    /// Show a service's instances to gRPC's etcd resolver and to CoreDNS
    Project(project::Project),
    /// End somebody's session with all that it holds
    Kill(act::Kill),
    /// Follow what happens to keys, locks, an election, a service
    Watch(watching::Watch),
    /// Read a key, or several
    Get(keys::Get),
    /// Write a key
    Put(keys::Put),
    /// Remove a key, or several
    Del(keys::Del),
    /// Ask and write in one revision
    Txn(txn::Txn),
    /// Grant, renew, look at, end leases
    #[command(subcommand)]
    Lease(lease::Lease),
    /// The members of the cluster
    #[command(subcommand)]
    Member(member::Member),
    /// How members are
    #[command(subcommand)]
    Endpoint(member::Endpoint),
    /// Save the whole state of a cluster to a file, look at such a file, make a new cluster from it
    #[command(subcommand)]
    Snapshot(snapshot::Snapshot),
    /// Copy an etcd, running or as a snapshot file, into Tenure
    Migrate(migrate::Migrate),
    /// Run a cluster of several members on this machine until Ctrl-C
    Cluster(cluster::Cluster),
    /// Print what a shell needs to complete these words
    Completion { shell: Shell },
    #[command(name = leash::VERB, hide = true)]
    Leash(leash::Leash),
}

fn main() -> ExitCode {
    let Tenure { verb } = Tenure::parse();
    let done = match verb {
        // Becomes another program, so it must not have begun anything.
        Verb::Leash(leash) => Err(leash.run()),
        verb => runtime().and_then(|runtime| {
            let done = runtime.block_on(run(verb));
            // What still waits for standard input must not hold up the end.
            runtime.shutdown_background();
            done
        }),
    };
    match done {
        Ok(code) => ExitCode::from(code),
        Err(failure) => {
            // Where even this cannot be written, the exit code has to do.
            let _ = writeln!(std::io::stderr(), "tenure: {failure}");
            failure.exit_code()
        }
    }
}

async fn run(verb: Verb) -> Result<u8, Failure> {
    let done = match verb {
        Verb::Lock(lock) => return lock.run().await,
        Verb::Sem(sem) => return sem.run().await,
        Verb::Elect(elect) => return elect.run().await,
        Verb::Register(register) => return register.run().await,
        Verb::Leash(leash) => Err(leash.run()),
        Verb::Ls(ls) => ls.run().await,
        Verb::Show(show) => show.run().await,
        Verb::Why(why) => why.run().await,
        Verb::Queue(queue) => queue.run().await,
        Verb::History(history) => history.run().await,
        Verb::Break(broken) => broken.run().await,
        Verb::Transfer(transfer) => transfer.run().await,
        Verb::Drain(drain) => drain.run().await,
        Verb::Undrain(undrain) => undrain.run().await,
        Verb::Project(project) => project.run().await,
        Verb::Kill(kill) => kill.run().await,
        Verb::Watch(watch) => watch.run().await,
        Verb::Get(get) => get.run().await,
        Verb::Put(put) => put.run().await,
        Verb::Del(del) => del.run().await,
        Verb::Txn(txn) => txn.run().await,
        Verb::Lease(lease) => lease.run().await,
        Verb::Member(member) => member.run().await,
        Verb::Endpoint(endpoint) => endpoint.run().await,
        Verb::Snapshot(snapshot) => snapshot.run().await,
        Verb::Migrate(migrate) => migrate.run().await,
        Verb::Cluster(cluster) => cluster.run().await,
        Verb::Completion { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Tenure::command(), "tenure", &mut script);
            output::say(String::from_utf8_lossy(&script).trim_end())
        }
    };
    done.map(|()| 0)
}

fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(|error| Failure::failed(format!("cannot start the runtime: {error}")))
}
