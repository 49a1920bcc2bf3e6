//! What a terminal or a supervisor says to end a program.

use rustix::process::Signal as Number;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::failure::Failure;

/// The signals that ask this program to end, which from here on do not end it by themselves.
pub struct Signals([(Number, Signal); 3]);

impl Signals {
    pub fn listen() -> Result<Signals, Failure> {
        let listen =
            |kind| signal(kind).map_err(|error| Failure::failed(format!("cannot wait for signals: {error}")));
        Ok(Signals([
            (Number::INT, listen(SignalKind::interrupt())?),
            (Number::TERM, listen(SignalKind::terminate())?),
            (Number::HUP, listen(SignalKind::hangup())?),
        ]))
    }

    pub async fn next(&mut self) -> Number {
        let Signals([(interrupt, first), (terminate, second), (hangup, third)]) = self;
        tokio::select! {
            _ = first.recv() => *interrupt,
            _ = second.recv() => *terminate,
            _ = third.recv() => *hangup,
        }
    }
}

pub fn name(signal: Number) -> &'static str {
    match signal {
        Number::INT => "SIGINT",
        Number::HUP => "SIGHUP",
        _ => "SIGTERM",
    }
}
