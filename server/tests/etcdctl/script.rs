//! The form of a session: one step a line, told by its first sign.
//!
//! ```text
//! # a comment
//! > put a 1            run etcdctl with these words (quoted as in a shell) to its end
//! | text               a line of input for the command above it
//! |repeat 3 put k{i}   the same line several times, {i} counting from 0
//! |fill 1000           one line of so many x
//! >2 watch a --rev=1   run until it has printed two lines, then ask it to stop
//! & w 1 elect e v      start under the name w, wait for one line, go on while it runs
//! ! w 3                wait until w has printed three lines in all, ask it to stop, and look at what it said
//! ^ w                  wait until w ends of itself, and look at what it said
//! @ R                  remember the store's revision as {R}; {R+2} is two more
//! $ L                  remember the first id that the last command printed as {L}
//! ```

pub struct Script {
    pub steps: Vec<Step>,
}

pub struct Step {
    /// Counted from 1, for complaints.
    pub line: usize,
    /// The line without its sign.
    pub text: String,
    pub deed: Deed,
}

pub enum Deed {
    Run { words: Vec<String>, input: String, until: Option<usize> },
    Begin { name: String, lines: usize, words: Vec<String>, input: String },
    Interrupt { name: String, lines: usize },
    Await { name: String },
    RememberRevision { name: String },
    RememberId { name: String },
}

impl Script {
    pub fn parse(text: &str) -> Script {
        let mut steps: Vec<Step> = Vec::new();
        for (number, line) in text.lines().enumerate() {
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            if let Some(rest) = line.strip_prefix('|') {
                let step =
                    steps.last_mut().unwrap_or_else(|| panic!("line {}: input for nothing", number + 1));
                step.deed.input().push_str(&input(rest));
                continue;
            }
            let (sign, rest) = line.split_once(' ').unwrap_or((line, ""));
            let deed =
                deed(sign, rest).unwrap_or_else(|| panic!("line {}: not understood: {line}", number + 1));
            steps.push(Step { line: number + 1, text: rest.to_owned(), deed });
        }
        Script { steps }
    }
}

impl Deed {
    fn input(&mut self) -> &mut String {
        match self {
            Deed::Run { input, .. } | Deed::Begin { input, .. } => input,
            Deed::Interrupt { .. }
            | Deed::Await { .. }
            | Deed::RememberRevision { .. }
            | Deed::RememberId { .. } => {
                panic!("only a command takes input")
            }
        }
    }
}

fn deed(sign: &str, rest: &str) -> Option<Deed> {
    let name = rest.to_owned();
    match sign {
        ">" => Some(Deed::Run { words: words(rest), input: String::new(), until: None }),
        "&" => {
            let (name, rest) = rest.split_once(' ')?;
            let (lines, rest) = rest.split_once(' ')?;
            let lines = lines.parse().ok()?;
            Some(Deed::Begin { name: name.to_owned(), lines, words: words(rest), input: String::new() })
        }
        "!" => {
            let (name, lines) = rest.split_once(' ')?;
            Some(Deed::Interrupt { name: name.to_owned(), lines: lines.parse().ok()? })
        }
        "^" => Some(Deed::Await { name }),
        "@" => Some(Deed::RememberRevision { name }),
        "$" => Some(Deed::RememberId { name }),
        _ => {
            let until = sign.strip_prefix('>')?.parse().ok()?;
            Some(Deed::Run { words: words(rest), input: String::new(), until: Some(until) })
        }
    }
}

fn input(rest: &str) -> String {
    if let Some(rest) = rest.strip_prefix("repeat ") {
        let (count, line) = rest.split_once(' ').expect("repeat COUNT LINE");
        let count: usize = count.parse().expect("repeat COUNT LINE");
        (0..count).map(|i| line.replace("{i}", &i.to_string()) + "\n").collect()
    } else if let Some(size) = rest.strip_prefix("fill ") {
        "x".repeat(size.parse().expect("fill SIZE")) + "\n"
    } else {
        rest.strip_prefix(' ').unwrap_or(rest).to_owned() + "\n"
    }
}

/// Words as a shell splits them: blanks separate, either kind of quote keeps together, nothing else means anything.
fn words(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote: Option<char> = None;
    for sign in text.chars() {
        match quote {
            Some(open) if sign == open => quote = None,
            Some(_) => word.get_or_insert_default().push(sign),
            None if sign == '\'' || sign == '"' => {
                quote = Some(sign);
                word.get_or_insert_default();
            }
            None if sign == ' ' => words.extend(word.take()),
            None => word.get_or_insert_default().push(sign),
        }
    }
    assert!(quote.is_none(), "a quote is not closed: {text}");
    words.extend(word);
    words
}
