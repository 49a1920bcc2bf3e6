//! The door: reads what was asked for, starts the runtime, and gives the exit code.

use std::process::ExitCode;

use tenured::config::{self, Config, Invocation};
use tenured::{logging, serve};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    match config::read(std::env::args_os().skip(1), std::env::vars_os()) {
        Ok(Invocation::Print(text)) => {
            use std::io::Write;
            // A closed pipe, as with `tenured --help | head`, is no failure.
            let _ = writeln!(std::io::stdout(), "{}", text.trim_end());
            ExitCode::SUCCESS
        }
        Ok(Invocation::Run { config, warnings }) => run(*config, &warnings),
        Err(error) => fail(&error, error.exit_code()),
    }
}

fn run(config: Config, warnings: &[String]) -> ExitCode {
    if let Err(error) = logging::start(&config.log) {
        return fail(&error, 1);
    }
    for warning in warnings {
        tracing::warn!("{warning}");
    }
    let runtime = match config.runtime_threads {
        1 => tokio::runtime::Builder::new_current_thread().enable_all().build(),
        threads => tokio::runtime::Builder::new_multi_thread().worker_threads(threads).enable_all().build(),
    };
    match runtime {
        Ok(runtime) => match runtime.block_on(serve::run(config)) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => fail(&error, 1),
        },
        Err(error) => fail(&format!("cannot start the runtime: {error}"), 1),
    }
}

/// One line on standard error, whatever the log's settings are.
fn fail(error: &dyn std::fmt::Display, code: u8) -> ExitCode {
    use std::io::Write;
    let _ = writeln!(std::io::stderr(), "tenured: {error}");
    ExitCode::from(code)
}
