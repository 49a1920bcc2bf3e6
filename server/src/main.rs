//! The door: reads what was asked for, starts the runtime, and gives the exit code.

use std::path::Path;
use std::process::ExitCode;

use tenured::config::{self, Config, Invocation, Report};
use tenured::supervisor::Supervisor;
use tenured::{logging, serve};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let read = |path: &Path| std::fs::read(path);
    match config::read_with_files(std::env::args_os().skip(1), std::env::vars_os(), &read) {
        Ok(Invocation::Print(text)) => {
            print(&text);
            ExitCode::SUCCESS
        }
        Ok(Invocation::Check(Report { settings, remarks, exit_code })) => {
            use std::io::Write;
            for remark in remarks {
                let _ = writeln!(std::io::stderr(), "{remark}");
            }
            print(&settings);
            ExitCode::from(exit_code)
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
    let supervisor = Supervisor::at(std::env::var_os("NOTIFY_SOCKET"));
    match runtime {
        Ok(runtime) => match runtime.block_on(serve::run(config, &supervisor)) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => fail(&error, 1),
        },
        Err(error) => fail(&format!("cannot start the runtime: {error}"), 1),
    }
}

fn print(text: &str) {
    use std::io::Write;
    // A closed pipe, as with `tenured --help | head`, is no failure.
    let _ = std::io::stdout().write_all(text.as_bytes());
}

/// One line on standard error, whatever the log's settings are.
fn fail(error: &dyn std::fmt::Display, code: u8) -> ExitCode {
    use std::io::Write;
    let _ = writeln!(std::io::stderr(), "tenured: {error}");
    ExitCode::from(code)
}
