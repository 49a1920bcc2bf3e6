//! Where each setting comes from: the command line, else `TENURE_*`, else `ETCD_*`. One text for each setting leaves
//! this room, together with the name it was given under, so that a later complaint names what the reader wrote.

use std::collections::BTreeMap;
use std::ffi::OsString;

use super::foreign::{self, Treatment};
use super::go_syntax::{self, Kind, Mistake};
use super::{Error, flags};

const OWN_PREFIX: &str = "TENURE_";
const ETCD_PREFIX: &str = "ETCD_";

/// Set by etcd's container images for other readers; etcd passes over it as well.
const NOT_A_SETTING: &str = "ETCD_VERSION";

/// A setting as somebody gave it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Given {
    pub value: String,
    /// `--name`, `TENURE_NAME` or `ETCD_NAME`.
    pub origin: String,
}

/// All settings given, and what the operator should be told about them.
#[derive(Debug, Default)]
pub(super) struct Sources {
    /// By the flag's name without dashes.
    pub settings: BTreeMap<String, Given>,
    pub warnings: Vec<String>,
}

/// What a command line asks for.
#[derive(Debug)]
pub(super) enum Asked {
    Help,
    Version,
    Run(Sources),
}

/// `arguments` are without the program's name; of `environment` only the variables with our prefixes are read.
pub(super) fn gather(
    arguments: impl IntoIterator<Item = OsString>,
    environment: impl IntoIterator<Item = (OsString, OsString)>,
) -> Result<Asked, Error> {
    let known = known_flags();
    let pairs =
        go_syntax::split(&utf8_arguments(arguments)?, |name| known.get(name).copied()).map_err(explain)?;
    let asked =
        |names: &[&str]| pairs.iter().any(|(name, value)| names.contains(&name.as_str()) && value == "true");
    if asked(&["help", "h"]) {
        return Ok(Asked::Help);
    }
    if asked(&["version"]) {
        return Ok(Asked::Version);
    }

    let mut sources = Sources::default();
    for (name, value) in pairs {
        // The last one counts, as in Go.
        sources.settings.insert(name.clone(), Given { value, origin: format!("--{name}") });
    }
    sources.add_environment(&known, environment)?;
    sources.settle_foreign()?;
    Ok(Asked::Run(sources))
}

impl Sources {
    fn add_environment(
        &mut self,
        known: &BTreeMap<String, Kind>,
        environment: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Result<(), Error> {
        let mut unknown = Vec::new();
        for (variable, value) in sorted_variables(environment) {
            let Some(name) = setting_of(&variable) else { continue };
            if !known.contains_key(&name) || ["help", "h", "version"].contains(&name.as_str()) {
                unknown.push(variable);
                continue;
            }
            let value = value
                .into_string()
                .map_err(|_| Error::usage(format!("the value of {variable} is not UTF-8")))?;
            // As etcd: a variable set to nothing is not set.
            if !value.is_empty() {
                self.add_variable(name, variable, value)?;
            }
        }
        if !unknown.is_empty() {
            self.warnings.push(format!("no setting is called so, ignored: {}", unknown.join(", ")));
        }
        Ok(())
    }

    fn add_variable(&mut self, name: String, variable: String, value: String) -> Result<(), Error> {
        match self.settings.get(&name) {
            None => {
                self.settings.insert(name, Given { value, origin: variable });
            }
            Some(flag) if flag.origin.starts_with('-') && variable.starts_with(ETCD_PREFIX) => {
                return Err(Error::check(format!(
                    "conflicting environment variable {variable} is shadowed by the flag {}; remove one of the two",
                    flag.origin
                )));
            }
            Some(stronger) => {
                self.warnings
                    .push(format!("{variable} is not used: {} is given too and counts", stronger.origin));
            }
        }
        Ok(())
    }

    /// Leaves only settings that Tenure has.
    fn settle_foreign(&mut self) -> Result<(), Error> {
        let foreign: Vec<&str> =
            foreign::names().map(|(name, _)| name).filter(|name| self.settings.contains_key(*name)).collect();
        for name in foreign {
            let Some(Given { value, origin }) = self.settings.remove(name) else { continue };
            match foreign::treatment(name, &value) {
                None => {}
                Some(Treatment::Ignored(note)) => {
                    self.warnings.push(format!("{origin} is accepted but not used: {note}"));
                }
                Some(Treatment::Refused(reason)) => {
                    return Err(Error::check(format!("cannot honour {origin}={value:?}: {reason}")));
                }
                Some(Treatment::Renamed(new)) => self.rename(new, Given { value, origin }),
                Some(Treatment::FeatureGates) => {
                    let notes = foreign::feature_gates(&value).map_err(|why| {
                        Error::usage(format!("invalid value {value:?} for {origin}: {why}"))
                    })?;
                    self.warnings.extend(notes);
                }
            }
        }
        Ok(())
    }

    fn rename(&mut self, new: &str, given: Given) {
        if let Some(newer) = self.settings.get(new) {
            self.warnings
                .push(format!("{} is not used: {} is given too and counts", given.origin, newer.origin));
        } else {
            self.warnings.push(format!("{} is the old name of --{new}", given.origin));
            self.settings.insert(new.to_owned(), given);
        }
    }
}

fn known_flags() -> BTreeMap<String, Kind> {
    let own = flags::names().into_iter();
    let foreign = foreign::names().map(|(name, kind)| (name.to_owned(), kind));
    let asking = ["help", "h", "version"].map(|name| (name.to_owned(), Kind::Boolean));
    own.chain(foreign).chain(asking).collect()
}

fn utf8_arguments(arguments: impl IntoIterator<Item = OsString>) -> Result<Vec<String>, Error> {
    let utf8 = |argument: OsString| {
        argument.into_string().map_err(|raw| Error::usage(format!("the argument {raw:?} is not UTF-8")))
    };
    arguments.into_iter().map(utf8).collect()
}

/// Ours before etcd's, as the first one given counts.
fn sorted_variables(environment: impl IntoIterator<Item = (OsString, OsString)>) -> Vec<(String, OsString)> {
    let named = |(name, value): (OsString, OsString)| Some((name.into_string().ok()?, value));
    let mut variables: Vec<_> = environment.into_iter().filter_map(named).collect();
    variables.sort_by_key(|(name, _)| (!name.starts_with(OWN_PREFIX), name.clone()));
    variables
}

/// `ETCD_DATA_DIR` -> `data-dir`.
fn setting_of(variable: &str) -> Option<String> {
    let rest = variable.strip_prefix(OWN_PREFIX).or_else(|| variable.strip_prefix(ETCD_PREFIX))?;
    let upper = !rest.bytes().any(|byte| byte.is_ascii_lowercase() || byte == b'-');
    (variable != NOT_A_SETTING)
        .then(|| if upper { rest.to_ascii_lowercase().replace('_', "-") } else { rest.to_owned() })
}

fn explain(mistake: Mistake) -> Error {
    Error::usage(match mistake {
        Mistake::UnknownFlag(name) => match flags::similar_to(&name) {
            Some(similar) => format!("flag provided but not defined: --{name}; did you mean {similar}?"),
            None => format!("flag provided but not defined: --{name}"),
        },
        Mistake::NeedsValue(name) => format!("flag needs an argument: --{name}"),
        Mistake::BadSyntax(argument) => format!("bad flag syntax: {argument:?}"),
        Mistake::Stray(word, Some(boolean)) => {
            format!("{word:?} is not a valid flag; the value of --{boolean} is written --{boolean}={word}")
        }
        Mistake::Stray(word, None) => format!("{word:?} is not a valid flag, and tenured has no subcommands"),
    })
}
