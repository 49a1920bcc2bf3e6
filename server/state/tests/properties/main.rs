//! What must hold of any commands, not only of those that someone thought of.

#![allow(clippy::unwrap_used)]

mod commands;
mod duplicates;
mod history;
mod hostile;
mod naive;
mod twins;
