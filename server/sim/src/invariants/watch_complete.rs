//! A watcher hears of every change of its keys, once, in order, up to what it was promised; headers of one stream do not go
//! back.

use bytes::Bytes;
use tenure_state::Place;

use super::{Invariant, Scene};
use crate::watching::{Stretch, Watching};

pub struct WatchComplete;

impl Invariant for WatchComplete {
    fn law(&self) -> &'static str {
        "watchers hear of everything, in order"
    }

    fn conclude(&mut self, scene: &Scene<'_>) -> Result<(), String> {
        for (number, watcher) in scene.watchers.iter().enumerate() {
            for stretch in &watcher.stretches {
                check(scene, watcher, &stretch.lock()).map_err(|what| format!("watcher {number}: {what}"))?;
            }
        }
        Ok(())
    }
}

fn check(scene: &Scene<'_>, watcher: &Watching, stretch: &Stretch) -> Result<(), String> {
    if let Some((before, after)) = stretch.went_back {
        return Err(format!("a header of {after} came after one of {before}"));
    }
    let Some(from) = stretch.from else { return Ok(()) };
    let upto = stretch.heard.last().map_or(0, |(place, ..)| place.main).max(stretch.promised);
    let happened = scene.truth.revisions().filter(|(at, _)| (from..=upto).contains(at));
    let mut expected: Vec<(Place, Bytes, Bytes)> = Vec::new();
    for (_, happened) in happened {
        let concerning = happened.events.iter().filter(|event| event.kv.key.starts_with(watcher.prefix()));
        expected.extend(concerning.map(|event| (event.place, event.kv.key.clone(), event.kv.value.clone())));
    }
    if stretch.heard == expected {
        return Ok(());
    }
    let same = stretch.heard.iter().zip(&expected).take_while(|(heard, expected)| heard == expected).count();
    let (heard, expected) = (stretch.heard.get(same), expected.get(same));
    Err(format!("from {from} to {upto}, after {same} events it heard {heard:?} where {expected:?} happened"))
}
