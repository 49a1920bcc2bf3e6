//! Nobody is told that a lease lives on who asked after it had ended.

use super::no_early_expiry::{ends, promised};
use super::{Invariant, Scene};
use crate::journal::{Ask, Told};

pub struct NoLateAcknowledgement;

impl Invariant for NoLateAcknowledgement {
    fn law(&self) -> &'static str {
        "no renewal after the end"
    }

    fn conclude(&mut self, scene: &Scene<'_>) -> Result<(), String> {
        let ends = ends(scene.truth);
        scene.journal.read(0, |exchanges| {
            for exchange in exchanges {
                let lives = match (&exchange.ask, exchange.told.as_ref().map(|(_, told)| told)) {
                    (Ask::Left { lease }, Some(Told::Left { granted_s: Some(_), .. })) => Some(*lease),
                    _ => promised(exchange).map(|(lease, _)| lease),
                };
                let end = lives.and_then(|lease| ends.get(&lease));
                if let Some(end) = end.filter(|end| **end < exchange.asked) {
                    return Err(format!("{exchange}; it had ended at {} ms", end.ms));
                }
            }
            Ok(())
        })
    }
}
