//! Where each setting comes from: a file alone if one is named, else the command line, else `TENURE_*`, else `ETCD_*`. One text for
//! each setting leaves this room, together with the name it was given under, so that a later complaint names what the reader
//! wrote. Reads no file itself: it is handed what does.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::Path;

use super::foreign::{self, Treatment};
use super::go_syntax::{self, Kind, Mistake, Pair};
use super::{Error, Files, file, flags};

const OWN_PREFIX: &str = "TENURE_";
const ETCD_PREFIX: &str = "ETCD_";

/// Set by etcd's container images for other readers; etcd passes over it as well.
const NOT_A_SETTING: &str = "ETCD_VERSION";

/// Names the file; neither a setting in it, nor one beside it.
const CONFIG_FILE: &str = "config-file";

/// Asks for a text, wherever else they stand.
const QUESTIONS: [&str; 3] = ["help", "h", "version"];

/// A setting as somebody gave it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Given {
    pub value: String,
    /// `--name`, `TENURE_NAME`, `ETCD_NAME`, or `name` in a file.
    pub origin: String,
    /// Which file and line.
    pub place: Option<String>,
}

impl Given {
    /// A complaint with its place before it, as compilers have it.
    pub fn placed(&self, text: String) -> String {
        match &self.place {
            Some(place) => format!("{place}: {text}"),
            None => text,
        }
    }

    pub fn invalid(&self, why: &str) -> Error {
        Error::usage(self.placed(format!("invalid value {:?} for {}: {why}", self.value, self.origin)))
    }
}

/// All settings given, and what the operator should be told about them.
#[derive(Debug, Default)]
pub(super) struct Sources {
    /// By the flag's name without dashes.
    pub settings: BTreeMap<String, Given>,
    pub warnings: Vec<String>,
    pub errors: Vec<Error>,
}

/// What a command line asks for.
#[derive(Debug)]
pub(super) enum Asked {
    Help,
    Version,
    Run(Sources),
    Check(Sources),
}

/// `arguments` are without the program's name; of `environment` only the variables with our prefixes are read.
pub(super) fn gather(
    arguments: impl IntoIterator<Item = OsString>,
    environment: impl IntoIterator<Item = (OsString, OsString)>,
    files: Files<'_>,
) -> Result<Asked, Error> {
    let known = known_flags();
    let arguments = utf8_arguments(arguments)?;
    let check = Check::asked(&arguments)?;
    let flags = &arguments[check.as_ref().map_or(0, |check| check.words)..];
    let pairs = go_syntax::split(flags, |name| known.get(name).copied()).map_err(explain)?;
    let asked =
        |names: &[&str]| pairs.iter().any(|(name, value)| names.contains(&name.as_str()) && value == "true");
    if asked(&["help", "h"]) {
        return Ok(Asked::Help);
    }
    if asked(&["version"]) {
        return Ok(Asked::Version);
    }

    let variables = sorted_variables(environment);
    let mut sources = Sources::default();
    match check.as_ref().and_then(|check| check.file.clone()).or_else(|| named_file(&pairs, &variables)) {
        Some(path) => sources.read_file(&known, &path, files, ignored_beside(&known, &pairs, &variables)),
        None => {
            for (name, value) in pairs {
                // The last one counts, as in Go.
                let origin = format!("--{name}");
                sources.settings.insert(name, Given { value, origin, place: None });
            }
            sources.add_environment(&known, variables);
        }
    }
    sources.settings.remove(CONFIG_FILE);
    sources.settle_foreign();
    Ok(if check.is_some() { Asked::Check(sources) } else { Asked::Run(sources) })
}

/// `tenured config check [FILE]`.
struct Check {
    /// How many words of the command line this is.
    words: usize,
    file: Option<String>,
}

impl Check {
    fn asked(arguments: &[String]) -> Result<Option<Check>, Error> {
        match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
            ["config", "check", file, ..] if !file.starts_with('-') => {
                Ok(Some(Check { words: 3, file: Some((*file).to_owned()) }))
            }
            ["config", "check", ..] => Ok(Some(Check { words: 2, file: None })),
            ["config", ..] => Err(Error::usage("write tenured config check [FILE] [flags]".to_owned())),
            _ => Ok(None),
        }
    }
}

impl Sources {
    fn read_file(
        &mut self,
        known: &BTreeMap<String, Kind>,
        path: &str,
        files: Files<'_>,
        ignored: Vec<String>,
    ) {
        if !ignored.is_empty() {
            self.warnings.push(format!(
                "settings are read from {path} alone, as etcd does with a configuration file; not used: {}",
                ignored.join(", ")
            ));
        }
        let text = match text_of(path, files) {
            Ok(text) => text,
            Err(why) => {
                let text = format!("cannot read the configuration file {path}: {why}; check --config-file");
                return self.errors.push(Error::check(text));
            }
        };
        let mut settable = known.clone();
        settable.retain(|name, _| name != CONFIG_FILE && !QUESTIONS.contains(&name.as_str()));
        let (entries, complaints) = file::read(&text, &settable);
        for file::Complaint { line, text } in complaints {
            self.errors.push(Error::usage(format!("{path}:{line}: {text}")));
        }
        for file::Entry { flag, key, value, line } in entries {
            // As etcd: an empty text is no list of URLs and no name of a file.
            if !value.is_empty() {
                let place = Some(format!("{path}:{line}"));
                self.settings.insert(flag, Given { value, origin: key, place });
            }
        }
        self.tell_of_the_silent_address(path);
    }

    /// etcd lets a file leave out what it demands of a command line, and then tells clients an address of its own making.
    fn tell_of_the_silent_address(&mut self, path: &str) {
        if self.settings.contains_key("listen-client-urls")
            && !self.settings.contains_key("advertise-client-urls")
        {
            const DEFAULT: &str = "http://localhost:2379";
            self.warnings.push(format!(
                "{path} has listen-client-urls without advertise-client-urls: clients are told {DEFAULT}"
            ));
            let origin = "advertise-client-urls".to_owned();
            self.settings.insert(origin.clone(), Given { value: DEFAULT.to_owned(), origin, place: None });
        }
    }

    fn add_environment(&mut self, known: &BTreeMap<String, Kind>, variables: Vec<(String, OsString)>) {
        let mut unknown = Vec::new();
        for (variable, value) in variables {
            let Some(name) = setting_of(&variable) else { continue };
            if !known.contains_key(&name) || QUESTIONS.contains(&name.as_str()) {
                unknown.push(variable);
                continue;
            }
            match value.into_string() {
                // As etcd: a variable set to nothing is not set.
                Ok(value) if value.is_empty() => {}
                Ok(value) => self.add_variable(name, variable, value),
                Err(_) => self.errors.push(Error::usage(format!("the value of {variable} is not UTF-8"))),
            }
        }
        if !unknown.is_empty() {
            self.warnings.push(format!("no setting is called so, ignored: {}", unknown.join(", ")));
        }
    }

    fn add_variable(&mut self, name: String, variable: String, value: String) {
        match self.settings.get(&name) {
            None => {
                self.settings.insert(name, Given { value, origin: variable, place: None });
            }
            Some(flag) if flag.origin.starts_with('-') && variable.starts_with(ETCD_PREFIX) => {
                self.errors.push(Error::check(format!(
                    "conflicting environment variable {variable} is shadowed by the flag {}; remove one of the two",
                    flag.origin
                )));
            }
            Some(stronger) => {
                self.warnings
                    .push(format!("{variable} is not used: {} is given too and counts", stronger.origin));
            }
        }
    }

    /// Leaves only settings that Tenure has.
    fn settle_foreign(&mut self) {
        let foreign: Vec<&str> =
            foreign::names().map(|(name, _)| name).filter(|name| self.settings.contains_key(*name)).collect();
        for name in foreign {
            let Some(given) = self.settings.remove(name) else { continue };
            let Given { value, origin, .. } = &given;
            match foreign::treatment(name, value) {
                None => {}
                Some(Treatment::Ignored(note)) => {
                    self.warnings.push(given.placed(format!("{origin} is accepted but not used: {note}")));
                }
                Some(Treatment::Refused(reason)) => {
                    let text = given.placed(format!("cannot honour {origin}={value:?}: {reason}"));
                    self.errors.push(Error::check(text));
                }
                Some(Treatment::Renamed(new)) => self.rename(new, given),
                Some(Treatment::FeatureGates) => match foreign::feature_gates(value) {
                    Ok(notes) => self.warnings.extend(notes),
                    Err(why) => self.errors.push(given.invalid(&why)),
                },
            }
        }
    }

    fn rename(&mut self, new: &str, given: Given) {
        if let Some(newer) = self.settings.get(new) {
            let text = format!("{} is not used: {} is given too and counts", given.origin, newer.origin);
            self.warnings.push(given.placed(text));
        } else {
            let dashes = if given.place.is_some() { "" } else { "--" };
            self.warnings.push(given.placed(format!("{} is the old name of {dashes}{new}", given.origin)));
            self.settings.insert(new.to_owned(), given);
        }
    }
}

/// A file named by the flag, else by the environment.
fn named_file(pairs: &[Pair], variables: &[(String, OsString)]) -> Option<String> {
    let flag = pairs.iter().rev().find(|(name, _)| name == CONFIG_FILE).map(|(_, value)| value.clone());
    let of_variable = |(variable, value): &(String, OsString)| {
        (setting_of(variable)? == CONFIG_FILE).then(|| value.to_string_lossy().into_owned())
    };
    let given = |path: &String| !path.is_empty();
    flag.filter(given).or_else(|| variables.iter().filter_map(of_variable).find(given))
}

/// What was given besides a file, under its names.
fn ignored_beside(
    known: &BTreeMap<String, Kind>,
    pairs: &[Pair],
    variables: &[(String, OsString)],
) -> Vec<String> {
    let is_setting = |name: &str| name != CONFIG_FILE && !QUESTIONS.contains(&name);
    let flags = pairs.iter().filter(|(name, _)| is_setting(name)).map(|(name, _)| format!("--{name}"));
    let counts = |(variable, value): &&(String, OsString)| {
        let name = setting_of(variable);
        !value.is_empty() && name.is_some_and(|name| is_setting(&name) && known.contains_key(&name))
    };
    let variables = variables.iter().filter(counts).map(|(variable, _)| variable.clone());
    let mut names: Vec<String> = flags.chain(variables).collect();
    names.dedup();
    names
}

fn text_of(path: &str, files: Files<'_>) -> Result<String, String> {
    let bytes = files(Path::new(path)).map_err(|error| error.to_string())?;
    if bytes.len() > file::BYTES_MAX {
        return Err(format!("it has {} bytes, {} at the most", bytes.len(), file::BYTES_MAX));
    }
    String::from_utf8(bytes).map_err(|_| "it is not UTF-8".to_owned())
}

fn known_flags() -> BTreeMap<String, Kind> {
    let own = flags::names().into_iter();
    let foreign = foreign::names().map(|(name, kind)| (name.to_owned(), kind));
    let asking = QUESTIONS.map(|name| (name.to_owned(), Kind::Boolean));
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
        Mistake::Stray(word, None) => {
            format!("{word:?} is not a valid flag; the only subcommand is 'tenured config check'")
        }
    })
}
