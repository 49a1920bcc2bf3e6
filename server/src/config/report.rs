//! What `tenured config check` says: each setting as it would be used and where it comes from, written so that it is itself a
//! configuration file; or all that is wrong. Judges nothing.

use std::collections::BTreeMap;

use super::sources::Given;
use super::{Config, Error, flags};

/// The answer to `tenured config check`.
#[derive(Debug)]
pub struct Report {
    /// For standard output: a configuration file of what would be used, or nothing.
    pub settings: String,
    /// For standard error, a line each: `warning: ...`, `error: ...`.
    pub remarks: Vec<String>,
    pub exit_code: u8,
}

impl Report {
    pub(super) fn new(
        given: &BTreeMap<String, Given>,
        examined: Result<&Config, &[Error]>,
        warnings: &[String],
    ) -> Report {
        let mut remarks: Vec<String> = warnings.iter().map(|warning| format!("warning: {warning}")).collect();
        let (settings, exit_code) = match examined {
            Ok(config) => match config.bootstrap() {
                Ok(_) => (written(config, given), 0),
                Err(error) => {
                    remarks.push(format!(
                        "error: without data yet, this member would not start: {}",
                        error.message
                    ));
                    (String::new(), error.exit_code())
                }
            },
            Err(errors) => {
                remarks.extend(errors.iter().map(|error| format!("error: {}", error.message)));
                (String::new(), errors.first().map_or(1, Error::exit_code))
            }
        };
        Report { settings, remarks, exit_code }
    }
}

fn written(config: &Config, given: &BTreeMap<String, Given>) -> String {
    let mut text = String::new();
    for (flag, default) in flags::defaults().into_iter().filter(|(flag, _)| flag != "config-file") {
        let given = given.get(&flag);
        let value =
            settled(config, &flag).unwrap_or_else(|| given.map_or(default, |given| given.value.clone()));
        let origin = match given {
            Some(Given { place: Some(place), .. }) => place,
            Some(Given { origin, .. }) => origin,
            None => "default",
        };
        let setting = format!("{flag}: {}", quoted(&value));
        text += &format!("{:<80} # {origin}\n", setting);
    }
    text
}

/// What is not as it was written, or follows from other settings.
fn settled(config: &Config, flag: &str) -> Option<String> {
    fn list<T: ToString>(items: &[T]) -> String {
        items.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
    }
    Some(match flag {
        "data-dir" => config.data_dir.display().to_string(),
        "listen-client-urls" => list(&config.listen.client),
        "listen-peer-urls" => list(&config.listen.peer),
        "advertise-client-urls" => list(&config.advertise_client_urls),
        "initial-advertise-peer-urls" => list(config.initial_advertise_peer_urls()),
        "initial-cluster" => {
            let members = config.bootstrap().ok()?.members;
            let pair = |(name, urls): (&String, &Vec<_>)| {
                urls.iter().map(|url| format!("{name}={url}")).collect::<Vec<_>>().join(",")
            };
            members.iter().map(pair).collect::<Vec<_>>().join(",")
        }
        "snapshot-count" => config.raft.snapshot_count.to_string(),
        "quota-backend-bytes" => match config.limits.quota_bytes {
            Some(bytes) => bytes.to_string(),
            None => "-1".to_owned(),
        },
        _ => return None,
    })
}

/// As YAML reads it back as the same text; nothing for nothing.
fn quoted(text: &str) -> String {
    let plain = text.chars().all(|c| c.is_ascii_alphanumeric() || "/.-_:,=+".contains(c));
    let starts_plainly = text.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '/');
    let word = !["null", "Null", "NULL"].contains(&text) && !text.ends_with(':');
    let negative =
        text.strip_prefix('-').is_some_and(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()));
    if text.is_empty() || negative || plain && starts_plainly && word {
        text.to_owned()
    } else {
        serde_json::Value::from(text).to_string()
    }
}
