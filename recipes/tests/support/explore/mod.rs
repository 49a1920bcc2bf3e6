//! Every interleaving of a few clients: each stops before every call to the store and goes on when it is let, and sessions end at any
//! moment between. A state that was seen before is not looked at again, since whatever follows from it is the same.
//!
//! What makes the states few enough to see all of them, and why nothing is missed by it:
//! - `client`: a client is what it was told, and of that what it has not forgotten;
//! - `print`: revisions count by their order alone;
//! - `scene`: which sessions still live, what is stored, and who knows what; who has come to its end, and a session that nobody would miss, are as if they had never been; who is bound to be overtaken is so at
//!   once; whoever waits for a change is told it at once.
//!
//! And what makes them quick: `shelf`, a store that is copied rather than led to the same state again, and a client that is run once for
//! each thing it can come to know, however many scenes it stands in. `replay` leads the whole server in memory along
//! one path of many, to the same keys.

mod client;
mod print;
mod replay;
mod scene;
mod shelf;
mod story;
mod troupe;

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

pub use client::{Answer, Ask, Gated};
pub use scene::{Choice, Forgotten, Planted, Rules, Scene};
pub use shelf::Shelf;

/// One state of so many is reached again on the whole server.
const REPLAYED: usize = 1_000;

/// How much was looked at.
#[derive(Clone, Copy, Debug, Default)]
pub struct Explored {
    pub states: usize,
    /// Some states are gone on from again, because somebody was overtaken more often on the way there.
    pub visits: usize,
    pub ends: usize,
}

/// Follows every path from `begin`. `audit` is called for each step, with the scene before and behind it; `check` for each state, and
/// with `true` where nothing can happen any more. Whatever is wrong makes them panic; the way there is told.
pub fn explore(begin: Scene, audit: impl Fn(&Scene, &Scene), check: impl Fn(&Scene, bool)) -> Explored {
    let mut explored = Explored::default();
    let mut seen: HashMap<u64, Vec<u32>> = HashMap::from([(begin.portrait(), begin.overtaken())]);
    let mut left = vec![begin];
    while let Some(scene) = left.pop() {
        explored.visits += 1;
        let choices = scene.choices_that_matter();
        at(&scene, || {
            check(&scene, choices.is_empty());
            assert!(!scene.is_stuck(), "{:?} wait for ever", scene.unfinished());
            if explored.visits % REPLAYED == 1 {
                replay::replay(&scene);
            }
        });
        explored.ends += usize::from(choices.is_empty());
        for choice in choices.into_iter().rev() {
            let next = at(&scene, || {
                let next = scene.after(choice);
                audit(&scene, &next);
                next
            });
            // Whoever was overtaken more often in a row has the same before it, as long as nobody is so often that it goes by that.
            let overtaken = next.overtaken();
            match seen.get_mut(&next.portrait()) {
                Some(before) if overtaken.iter().zip(&*before).all(|(now, before)| now <= before) => continue,
                Some(before) => {
                    before.iter_mut().zip(&overtaken).for_each(|(most, now)| *most = *now.max(most))
                }
                None => drop(seen.insert(next.portrait(), overtaken)),
            }
            left.push(next);
        }
    }
    Explored { states: seen.len(), ..explored }
}

/// Whether a mistake that was planted is found, and told in these words.
pub fn finds(words: &str, explore: impl FnOnce() -> Explored) {
    let said =
        catch_unwind(AssertUnwindSafe(explore)).expect_err("a mistake was planted and nothing is wrong");
    let said = said.downcast_ref::<String>().cloned().unwrap_or_default();
    assert!(said.contains(words), "not {words:?} but: {said}");
}

/// Whatever goes wrong in it is told with the way there.
fn at<T>(scene: &Scene, act: impl FnOnce() -> T) -> T {
    catch_unwind(AssertUnwindSafe(act)).unwrap_or_else(|said| {
        let said =
            said.downcast_ref::<String>().cloned().or_else(|| Some((*said.downcast_ref::<&str>()?).into()));
        panic!("{} after {:?}", said.unwrap_or_default(), scene.story)
    })
}

/// Follows one path to its end, as `chance` has it: for more clients than all paths of could be followed. `chance` gives a number below
/// the one it is given.
pub fn wander(
    mut scene: Scene,
    on_death: impl Fn(&mut Scene),
    check: impl Fn(&Scene, bool),
    mut chance: impl FnMut(usize) -> usize,
) {
    loop {
        let choices = scene.choices();
        at(&scene, || check(&scene, choices.is_empty()));
        assert!(!scene.is_stuck(), "{:?} wait for ever after {:?}", scene.unfinished(), scene.story);
        if choices.is_empty() {
            return replay::replay(&scene);
        }
        // Ends of sessions are rare, or nobody would come to anything.
        let steps = choices.iter().filter(|choice| matches!(choice, Choice::Step(_))).count();
        let all = if steps > 0 && chance(20) > 0 { steps } else { choices.len() };
        let choice = choices[chance(all)];
        scene.follow(choice);
        if matches!(choice, Choice::Expire(_)) {
            on_death(&mut scene);
        }
    }
}
