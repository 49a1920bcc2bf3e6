//! How Go's flag package reads a command line, which is how people write etcd's: `-name x`, `--name x`, `--name=x`, and
//! booleans only as `--flag` or `--flag=false`. Knows which flags exist only by asking.

/// A flag as read: its name without dashes, and its text.
pub(super) type Pair = (String, String);

/// What readers of texts must know of a flag: a command line only whether it is a boolean, a file also the rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Boolean,
    /// Bare numbers in a file are nanoseconds.
    Duration,
    /// Commas between items; in a file also a list.
    List,
    Value,
}

/// Why a command line cannot be read.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Mistake {
    UnknownFlag(String),
    NeedsValue(String),
    BadSyntax(String),
    /// A word that is no flag; the second is the boolean just before it, whose value it may have been meant to be.
    Stray(String, Option<String>),
}

/// Splits arguments (without the program's name) into flags and their texts, in order.
pub(super) fn split(
    arguments: &[String],
    kind_of: impl Fn(&str) -> Option<Kind>,
) -> Result<Vec<Pair>, Mistake> {
    let mut pairs: Vec<Pair> = Vec::new();
    let mut bare_boolean = None;
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        let word = match argument.strip_prefix("--").or_else(|| argument.strip_prefix('-')) {
            Some("") if argument == "--" => break,
            None | Some("") => return Err(Mistake::Stray(argument.clone(), bare_boolean)),
            Some(word) => word,
        };
        if word.starts_with(['-', '=']) {
            return Err(Mistake::BadSyntax(argument.clone()));
        }
        let (name, given) = match word.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (word, None),
        };
        let kind = kind_of(name).ok_or_else(|| Mistake::UnknownFlag(name.to_owned()))?;
        bare_boolean = (kind == Kind::Boolean && given.is_none()).then(|| name.to_owned());
        let value = match (given, kind) {
            (Some(value), _) => value,
            (None, Kind::Boolean) => "true".to_owned(),
            (None, _) => rest.next().ok_or_else(|| Mistake::NeedsValue(name.to_owned()))?.clone(),
        };
        pairs.push((name.to_owned(), value));
    }
    match rest.next() {
        Some(stray) => Err(Mistake::Stray(stray.clone(), None)),
        None => Ok(pairs),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn read(line: &str) -> Result<Vec<Pair>, Mistake> {
        let arguments: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        split(&arguments, |name| match name {
            "name" | "quota" => Some(Kind::Value),
            "pre-vote" => Some(Kind::Boolean),
            _ => None,
        })
    }

    fn pair(name: &str, value: &str) -> Pair {
        (name.to_owned(), value.to_owned())
    }

    #[test]
    fn one_dash_or_two_with_or_without_equals() {
        for line in ["--name x", "-name x", "--name=x", "-name=x", "--name x --"] {
            assert_eq!(read(line).unwrap(), [pair("name", "x")], "{line}");
        }
        assert_eq!(read("--name=").unwrap(), [pair("name", "")]);
        assert_eq!(read("--name=a=b").unwrap(), [pair("name", "a=b")]);
        assert_eq!(
            read("--quota -1 -name --pre-vote").unwrap(),
            [pair("quota", "-1"), pair("name", "--pre-vote")]
        );
    }

    #[test]
    fn booleans_take_no_second_word() {
        assert_eq!(read("--pre-vote").unwrap(), [pair("pre-vote", "true")]);
        assert_eq!(read("--pre-vote=false").unwrap(), [pair("pre-vote", "false")]);
        let stray = Mistake::Stray("false".to_owned(), Some("pre-vote".to_owned()));
        assert_eq!(read("--pre-vote false").unwrap_err(), stray);
    }

    #[test]
    fn mistakes_are_told_apart() {
        assert_eq!(read("--nonsense").unwrap_err(), Mistake::UnknownFlag("nonsense".to_owned()));
        assert_eq!(read("--nonsense=1").unwrap_err(), Mistake::UnknownFlag("nonsense".to_owned()));
        assert_eq!(read("--name").unwrap_err(), Mistake::NeedsValue("name".to_owned()));
        assert_eq!(read("---name x").unwrap_err(), Mistake::BadSyntax("---name".to_owned()));
        assert_eq!(read("--=x").unwrap_err(), Mistake::BadSyntax("--=x".to_owned()));
        assert_eq!(read("gateway").unwrap_err(), Mistake::Stray("gateway".to_owned(), None));
        assert_eq!(read("-").unwrap_err(), Mistake::Stray("-".to_owned(), None));
        assert_eq!(read("--pre-vote -- x").unwrap_err(), Mistake::Stray("x".to_owned(), None));
    }
}
