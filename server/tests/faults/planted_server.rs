//! The server with a bug in it, for the fault tests to find; `tenured` itself never has one. Takes the same flags, and the bug's
//! name from `PLANTED_BUG`.

use std::process::ExitCode;

use tenured::config::{self, Invocation};
use tenured::supervisor::Supervisor;
use tenured::{logging, serve};

fn main() -> ExitCode {
    let config = match config::read(std::env::args_os().skip(1), std::env::vars_os()) {
        Ok(Invocation::Run { config, .. }) => config,
        Ok(Invocation::Print(text)) => return end(&text),
        Ok(Invocation::Check(_)) => return end(&"it only serves"),
        Err(error) => return end(&error),
    };
    if let Err(error) = logging::start(&config.log) {
        return end(&error);
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    match runtime.map(|runtime| runtime.block_on(serve::run(*config, &Supervisor::default()))) {
        Ok(Ok(())) => ExitCode::SUCCESS,
        Ok(Err(error)) => end(&error),
        Err(error) => end(&error),
    }
}

fn end(why: &dyn std::fmt::Display) -> ExitCode {
    use std::io::Write;
    let _ = writeln!(std::io::stderr(), "tenured-planted: {why}");
    ExitCode::FAILURE
}
