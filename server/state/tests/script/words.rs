//! The words behind a command: those that stand in order, flags among them, and those with a name.

use std::collections::{BTreeMap, VecDeque};
use std::error::Error;

use bytes::Bytes;
use goldenscript::{Argument, Command};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

pub struct Words {
    positional: VecDeque<String>,
    named: BTreeMap<String, String>,
}

impl Words {
    pub fn of(command: &Command) -> Words {
        let mut words = Words { positional: VecDeque::new(), named: BTreeMap::new() };
        for argument in &command.args {
            match argument {
                Argument::Positional(word) => words.positional.push_back(word.clone()),
                Argument::KeyValue(name, word) => {
                    words.named.insert(name.clone(), word.clone());
                }
                _ => {}
            }
        }
        words
    }

    /// The next in order.
    pub fn word(&mut self) -> Result<String> {
        self.positional.pop_front().ok_or_else(|| "a word is missing".into())
    }

    pub fn bytes(&mut self) -> Result<Bytes> {
        to_bytes(&self.word()?)
    }

    pub fn number(&mut self) -> Result<i64> {
        Ok(self.word()?.parse()?)
    }

    /// Whether this word stands among the rest.
    pub fn flag(&mut self, name: &str) -> bool {
        let at = self.positional.iter().position(|word| word == name);
        at.is_some_and(|at| self.positional.remove(at).is_some())
    }

    pub fn named(&mut self, name: &str) -> Option<String> {
        self.named.remove(name)
    }

    pub fn named_bytes(&mut self, name: &str) -> Result<Option<Bytes>> {
        self.named(name).map(|word| to_bytes(&word)).transpose()
    }

    /// 0 when absent.
    pub fn named_number(&mut self, name: &str) -> Result<i64> {
        Ok(self.named(name).map(|word| word.parse()).transpose()?.unwrap_or(0))
    }

    /// A word of the list counts as its place in it; a number counts as itself; 0 when absent.
    pub fn named_choice(&mut self, name: &str, choices: &[&str]) -> Result<i32> {
        self.named(name).map_or(Ok(0), |word| choice(&word, choices))
    }

    pub fn done(self) -> Result<()> {
        match (self.positional.front(), self.named.keys().next()) {
            (None, None) => Ok(()),
            (Some(word), _) | (_, Some(word)) => Err(format!("what does {word:?} mean here?").into()),
        }
    }
}

pub fn choice(word: &str, choices: &[&str]) -> Result<i32> {
    match choices.iter().position(|choice| *choice == word) {
        Some(place) => Ok(place as i32),
        None => word.parse().map_err(|_| format!("{word:?} is none of {choices:?}").into()),
    }
}

fn to_bytes(word: &str) -> Result<Bytes> {
    let byte = |c: char| u8::try_from(u32::from(c)).map_err(|_| format!("{c:?} is no byte").into());
    word.chars().map(byte).collect::<Result<Vec<u8>>>().map(Bytes::from)
}
