//! `cargo sim`: lives many seeds and says which of them break a law, with the line that lives it again.

use std::io::Write;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use clap::Parser;
use tenure_sim::{Broken, Lived, Plan, live};

/// Lives simulated clusters, a seed each, and checks that what must hold does.
#[derive(Parser)]
#[command(bin_name = "cargo sim")]
struct Options {
    /// How many seeds.
    #[arg(long, default_value_t = 100)]
    seeds: u64,
    /// The first of them.
    #[arg(long, default_value_t = 1)]
    from: u64,
    /// Members of each cluster; given none, seeds take turns with 1, 3 and 5.
    #[arg(long)]
    members: Option<usize>,
    /// Seconds in which things go wrong.
    #[arg(long, default_value_t = 20)]
    trouble: u64,
    /// Threads, each with a world of its own; given none, as many as there are processors.
    #[arg(long)]
    threads: Option<usize>,
    /// Tell what happens in each.
    #[arg(long)]
    tell: bool,
    /// Also show the members' own log lines, at this level.
    #[arg(long)]
    log: Option<String>,
}

fn main() -> ExitCode {
    let options = Options::parse();
    if let Some(level) = &options.log {
        tracing_subscriber::fmt().with_env_filter(level).without_time().init();
    }
    let next = AtomicU64::new(options.from);
    let end = options.from + options.seeds;
    let results = Mutex::new(Vec::new());
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let began = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..options.threads.unwrap_or(processors) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= end {
                        return;
                    }
                    // A thread of its own for each: what libraries keep by the thread is new then.
                    let plan = plan(&options, seed);
                    let lived = std::thread::scope(|scope| scope.spawn(|| live(&plan)).join());
                    report(&options, &plan, lived.as_ref().ok(), &results, began);
                    if let Ok(lived) = lived
                        && let Ok(mut results) = results.lock()
                    {
                        results.push((plan, lived));
                    }
                }
            });
        }
    });
    let results = results.into_inner().unwrap_or_default();
    summary(&options, &results, began)
}

fn plan(options: &Options, seed: u64) -> Plan {
    let members = options.members.unwrap_or([3, 1, 3, 5][(seed % 4) as usize]);
    let tell =
        options.tell.then_some((|ms: u64, what: &str| say(&format!("{ms:>7} ms  {what}"))) as fn(u64, &str));
    Plan { seed, members, trouble_ms: options.trouble * 1_000, planted: None, tell }
}

type Results = Mutex<Vec<(Plan, Result<Lived, Broken>)>>;

fn report(
    options: &Options,
    plan: &Plan,
    lived: Option<&Result<Lived, Broken>>,
    results: &Results,
    began: Instant,
) {
    match lived {
        Some(Ok(lived)) if options.tell => say(&format!("seed {}: {lived:?}", plan.seed)),
        Some(Ok(_)) => {
            let done = results.lock().map_or(0, |results| results.len() + 1);
            if done.is_multiple_of(25) {
                say(&format!("{done} of {} seeds, {:.0} s", options.seeds, began.elapsed().as_secs_f64()));
            }
        }
        Some(Err(broken)) => {
            say(&format!("seed {} breaks \"{}\": {}\n  {}", plan.seed, broken.law, broken.what, plan.again()))
        }
        None => say(&format!("seed {} panicked\n  {}", plan.seed, plan.again())),
    }
}

fn summary(options: &Options, results: &[(Plan, Result<Lived, Broken>)], began: Instant) -> ExitCode {
    say("members   seeds  broken   faults  questions  answered  revisions  leaders  left alone   simulated");
    for members in [1, 3, 5, 7] {
        let of_size: Vec<_> = results.iter().filter(|(plan, _)| plan.members == members).collect();
        if of_size.is_empty() {
            continue;
        }
        let lived: Vec<&Lived> = of_size.iter().filter_map(|(_, lived)| lived.as_ref().ok()).collect();
        let sum = |what: fn(&Lived) -> u64| lived.iter().map(|lived| what(lived)).sum::<u64>();
        say(&format!(
            "{members:>7} {:>7} {:>7} {:>8} {:>10} {:>9} {:>10} {:>8} {:>11} {:>9} s",
            of_size.len(),
            of_size.len() - lived.len(),
            sum(|lived| lived.faults as u64),
            sum(|lived| lived.exchanges as u64),
            sum(|lived| lived.answered as u64),
            sum(|lived| lived.revisions.unsigned_abs()),
            sum(|lived| lived.leaders as u64),
            sum(|lived| lived.left_alone as u64),
            sum(|lived| lived.ms) / 1_000,
        ));
    }
    let broken: Vec<&Plan> =
        results.iter().filter(|(_, lived)| lived.is_err()).map(|(plan, _)| plan).collect();
    let took = began.elapsed().as_secs_f64();
    say(&format!("{} seeds in {took:.0} s", results.len()));
    for plan in &broken {
        say(&format!("broken: {}", plan.again()));
    }
    let all_came_back = results.len() as u64 == options.seeds;
    if broken.is_empty() && all_came_back { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn say(line: &str) {
    // Nobody is left to be told if this fails.
    let _ = writeln!(std::io::stdout().lock(), "{line}");
}
