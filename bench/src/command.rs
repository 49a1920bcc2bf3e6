//! A server's command line as the user writes it: words, quotes, leading `NAME=value` settings, and placeholders.
//!
//! | placeholder | becomes |
//! |---|---|
//! | `{dir}` | an empty data directory |
//! | `{client}` | the client URL, such as `http://127.0.0.1:40001` |
//! | `{peer}` | the peer URL |
//! | `{name}` | the member's name: `default` when it is alone, else `m0`, `m1`, ... |
//! | `{i}` | the member's number, from 0 |
//! | `{cluster}` | all members as `name=peer,name=peer` |
//!
//! No shell is involved: what is started is the server itself, so that its process id is known.

use std::path::Path;
use std::str::FromStr;

/// A command line with placeholders.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Template {
    text: String,
    settings: Vec<(String, String)>,
    words: Vec<String>,
}

/// What the placeholders of one member become.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub(crate) dir: String,
    pub(crate) client: String,
    pub(crate) peer: String,
    pub(crate) name: String,
    pub(crate) number: usize,
    pub(crate) cluster: String,
}

/// A command ready to start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Command {
    pub(crate) settings: Vec<(String, String)>,
    pub(crate) program: String,
    pub(crate) arguments: Vec<String>,
}

const PLACEHOLDERS: [&str; 6] = ["dir", "client", "peer", "name", "i", "cluster"];

impl FromStr for Template {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut words = split(text)?;
        let settings_count = words.iter().take_while(|word| setting(word).is_some()).count();
        let settings = words.drain(..settings_count).filter_map(|word| setting(&word)).collect();
        if words.is_empty() {
            return Err("a program to start is missing".to_owned());
        }
        for name in words.iter().flat_map(|word| placeholders(word)) {
            if !PLACEHOLDERS.contains(&name) {
                return Err(format!("{{{name}}} is not known; there are {{{}}}", PLACEHOLDERS.join("} {")));
            }
        }
        Ok(Self { text: text.to_owned(), settings, words })
    }
}

impl std::fmt::Display for Template {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text)
    }
}

impl Template {
    /// The program's name without its directory.
    pub(crate) fn program_name(&self) -> String {
        let program = Path::new(&self.words[0]);
        program.file_stem().unwrap_or(program.as_os_str()).to_string_lossy().into_owned()
    }

    pub(crate) fn fill(&self, place: &Place) -> Command {
        let mut words = self.words.iter().map(|word| place.fill(word));
        Command {
            settings: self.settings.iter().map(|(name, value)| (name.clone(), place.fill(value))).collect(),
            program: words.next().unwrap_or_default(),
            arguments: words.collect(),
        }
    }
}

impl Place {
    fn fill(&self, word: &str) -> String {
        word.replace("{dir}", &self.dir)
            .replace("{client}", &self.client)
            .replace("{peer}", &self.peer)
            .replace("{name}", &self.name)
            .replace("{i}", &self.number.to_string())
            .replace("{cluster}", &self.cluster)
    }
}

/// Splits as a shell does, as far as blanks, quotes and backslashes go.
fn split(text: &str) -> Result<Vec<String>, String> {
    let (mut words, mut word, mut quote) = (Vec::new(), None::<String>, None);
    let mut letters = text.chars();
    while let Some(letter) = letters.next() {
        match (quote, letter) {
            (Some(open), _) if letter == open => quote = None,
            (None, '\'' | '"') => {
                quote = Some(letter);
                word.get_or_insert_default();
            }
            (None, _) if letter.is_whitespace() => words.extend(word.take()),
            (None | Some('"'), '\\') => {
                let escaped = letters.next().ok_or("a backslash ends the command line")?;
                word.get_or_insert_default().push(escaped);
            }
            _ => word.get_or_insert_default().push(letter),
        }
    }
    words.extend(word);
    if quote.is_some() { Err("a quote is not closed".to_owned()) } else { Ok(words) }
}

fn setting(word: &str) -> Option<(String, String)> {
    let (name, value) = word.split_once('=')?;
    let named = !name.is_empty()
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
        && !name.starts_with(|c: char| c.is_ascii_digit());
    named.then(|| (name.to_owned(), value.to_owned()))
}

/// Names in braces; braces around anything else are ordinary text.
fn placeholders(word: &str) -> Vec<&str> {
    let named = |name: &&str| !name.is_empty() && name.chars().all(|c| c.is_ascii_lowercase() || c == '_');
    word.split('{')
        .skip(1)
        .filter_map(|rest| rest.split_once('}'))
        .map(|(name, _)| name)
        .filter(named)
        .collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn place() -> Place {
        Place {
            dir: "/d/0".into(),
            client: "http://127.0.0.1:1".into(),
            peer: "http://127.0.0.1:2".into(),
            name: "m0".into(),
            number: 0,
            cluster: "m0=http://127.0.0.1:2".into(),
        }
    }

    #[test]
    fn words_are_split_as_a_shell_would() {
        let cases = [
            ("a  b", vec!["a", "b"]),
            ("a 'b c' \"d e\"", vec!["a", "b c", "d e"]),
            (r#"a\ b "c\"d" 'e\f'"#, vec!["a b", "c\"d", r"e\f"]),
            ("a '' b", vec!["a", "", "b"]),
            ("x'y'z", vec!["xyz"]),
            (" \n ", vec![]),
        ];
        for (text, words) in cases {
            assert_eq!(split(text).unwrap(), words, "{text}");
        }
        assert!(split("a 'b").is_err() && split("a \\").is_err());
    }

    #[test]
    fn placeholders_become_the_members_own() {
        let text = "GOMAXPROCS=1 /usr/bin/etcd --data-dir {dir}/x --listen-client-urls={client} --initial-cluster {cluster} m{i}";
        let template: Template = text.parse().unwrap();
        assert_eq!((template.program_name().as_str(), template.to_string().as_str()), ("etcd", text));
        let command = template.fill(&place());
        assert_eq!(command.settings, [("GOMAXPROCS".to_owned(), "1".to_owned())]);
        assert_eq!(command.program, "/usr/bin/etcd");
        let wanted = "--data-dir /d/0/x --listen-client-urls=http://127.0.0.1:1 --initial-cluster m0=http://127.0.0.1:2 m0";
        assert_eq!(command.arguments, wanted.split(' ').collect::<Vec<_>>());
    }

    #[test]
    fn unknown_placeholders_and_empty_commands_are_refused() {
        assert!("etcd {data}".parse::<Template>().is_err_and(|text| text.contains("{data}")));
        assert!("etcd --json '{\"a\": 1}'".parse::<Template>().is_ok());
        for text in ["", "  ", "A=1"] {
            assert!(text.parse::<Template>().is_err(), "{text}");
        }
    }
}
