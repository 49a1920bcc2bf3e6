//! How a scene came about, to be told when something is wrong, and to be done again elsewhere.

use std::fmt::{self, Debug};
use std::rc::Rc;

use super::client::Ask;
use super::scene::Choice;
use super::troupe::Client;

/// What happened, the last first.
#[derive(Clone, Default)]
pub struct Story(Option<Rc<(Deed, Story)>>);

#[derive(Clone, Debug)]
pub enum Deed {
    /// Before there were clients.
    Prepared(Ask),
    Asked(usize, Rc<Client>),
    Ended(i64),
}

impl Story {
    pub fn add(&mut self, deed: Deed) {
        *self = Story(Some(Rc::new((deed, self.clone()))));
    }

    /// In the order of what happened.
    pub fn deeds(&self) -> Vec<Deed> {
        let (mut deeds, mut at) = (Vec::new(), self);
        while let Story(Some(last)) = at {
            deeds.push(last.0.clone());
            at = &last.1;
        }
        deeds.reverse();
        deeds
    }
}

/// As the choices that led here.
impl Debug for Story {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let choices = self.deeds().into_iter().filter_map(|deed| match deed {
            Deed::Prepared(_) => None,
            Deed::Asked(client, _) => Some(Choice::Step(client)),
            Deed::Ended(lease) => Some(Choice::Expire(lease)),
        });
        f.debug_list().entries(choices).finish()
    }
}
