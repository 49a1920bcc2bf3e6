//! A member that serves has said no higher revision before: neither in a header, across restarts, nor does what it shows go
//! back.

use std::collections::BTreeMap;

use super::{Invariant, Scene};

#[derive(Default)]
pub struct HeadersNeverGoBack {
    /// By member: the highest revision that it stood at while it served.
    stood: BTreeMap<usize, i64>,
    /// By member: the highest that a client was told, and by exchange what that was when it was asked.
    told: BTreeMap<usize, i64>,
}

impl Invariant for HeadersNeverGoBack {
    fn law(&self) -> &'static str {
        "revisions never go back"
    }

    fn look(&mut self, scene: &Scene<'_>) -> Result<(), String> {
        for sight in scene.living().filter(|sight| sight.serving) {
            let now = sight.desk.view.machine().revision().0;
            let stood = self.stood.entry(sight.member).or_insert(now);
            if now < *stood {
                return Err(format!("member {} serves revision {now} after {stood}", sight.member + 1));
            }
            *stood = now;
        }
        Ok(())
    }

    fn conclude(&mut self, scene: &Scene<'_>) -> Result<(), String> {
        let exchanges = scene.journal.exchanges();
        let mut moments = Vec::new();
        for (number, exchange) in exchanges.iter().enumerate() {
            moments.push((exchange.asked, number, None));
            if let Some((moment, told)) = &exchange.told {
                moments.push((*moment, number, told.at()));
            }
        }
        moments.sort_unstable_by_key(|(moment, ..)| *moment);
        let mut floors = BTreeMap::new();
        for (_, number, at) in moments {
            let exchange = &exchanges[number];
            let told = self.told.entry(exchange.member).or_insert(0);
            match at {
                None => drop(floors.entry(number).or_insert(*told)),
                Some(at) if at < floors[&number] => {
                    return Err(format!(
                        "{exchange}; somebody had been told {} there before",
                        floors[&number]
                    ));
                }
                Some(at) => *told = at.max(*told),
            }
        }
        Ok(())
    }
}
