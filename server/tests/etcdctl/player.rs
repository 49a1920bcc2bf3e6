//! Plays a session with one etcdctl to one server and writes down what was heard, in the form in which it can be compared.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use crate::harness::{Finished, Program, Server};
use crate::normal::{MISSING, Normaliser, first_id};
use crate::script::{Deed, Script};

const COMMAND_BOUND: Duration = Duration::from_secs(70);
/// For lines that should come by themselves. When they do not, the session goes on, so that all differences are seen at once.
const LINES_BOUND: Duration = Duration::from_secs(20);

/// One step's outcome.
pub struct Heard {
    pub line: usize,
    pub command: String,
    pub said: String,
}

struct Player<'a> {
    etcdctl: &'a Path,
    server: &'a Server,
    under_way: BTreeMap<String, Program>,
    /// What `{NAME}` stands for.
    revisions: BTreeMap<String, i64>,
    ids: BTreeMap<String, String>,
    last: String,
}

/// The outcomes of all steps that have one.
pub fn play(script: &Script, etcdctl: &Path, server: &Server) -> Vec<Heard> {
    let mut player = Player {
        etcdctl,
        server,
        under_way: BTreeMap::new(),
        revisions: BTreeMap::new(),
        ids: BTreeMap::new(),
        last: String::new(),
    };
    let mut normaliser = Normaliser::new(&server.launch);
    let mut heard = Vec::new();
    for step in &script.steps {
        if let Some(finished) = player.step(&step.deed) {
            player.last = finished.stdout.clone();
            let said = normaliser.normalise(&finished);
            heard.push(Heard { line: step.line, command: step.text.clone(), said });
        }
    }
    heard
}

impl Player<'_> {
    fn step(&mut self, deed: &Deed) -> Option<Finished> {
        match deed {
            Deed::Run { words, input, until } => {
                let program = self.start(words, input);
                Some(match until {
                    None => program.finish(COMMAND_BOUND),
                    Some(lines) => self.interrupt(program, *lines),
                })
            }
            Deed::Begin { name, lines, words, input } => {
                let mut program = self.start(words, input);
                program.wait_for_lines(*lines, LINES_BOUND);
                self.under_way.insert(name.clone(), program);
                None
            }
            Deed::Interrupt { name, lines } => {
                let program = self.take(name);
                Some(self.interrupt(program, *lines))
            }
            Deed::Await { name } => Some(self.take(name).finish(COMMAND_BOUND)),
            Deed::RememberRevision { name } => {
                let revision = self.revision();
                self.revisions.insert(name.clone(), revision);
                None
            }
            Deed::RememberId { name } => {
                let id = first_id(&self.last).unwrap_or_else(|| panic!("no id in: {}", self.last));
                self.ids.insert(name.clone(), id);
                None
            }
        }
    }

    fn start(&self, words: &[String], input: &str) -> Program {
        let mut arguments = vec![
            format!("--endpoints={}", self.server.endpoint()),
            // A busy machine is not what is compared here.
            "--dial-timeout=30s".to_owned(),
            "--command-timeout=60s".to_owned(),
        ];
        arguments.extend(words.iter().map(|word| self.substitute(word)));
        let mut program = Program::start(self.etcdctl, &arguments);
        program.say(&self.substitute(input));
        program
    }

    fn interrupt(&self, mut program: Program, lines: usize) -> Finished {
        let complete = program.wait_for_lines(lines, LINES_BOUND);
        let mut finished = program.interrupt(COMMAND_BOUND);
        if !complete {
            finished.stdout.push_str(&format!("{MISSING}: {lines} lines\n"));
        }
        finished
    }

    fn take(&mut self, name: &str) -> Program {
        self.under_way.remove(name).unwrap_or_else(|| panic!("nothing was started as {name}"))
    }

    /// The header of any answer tells it; a key that nobody reads is asked for.
    fn revision(&self) -> i64 {
        let words = ["get", "no such key", "--write-out=fields"].map(str::to_owned);
        let finished = self.start(&words, "").finish(COMMAND_BOUND);
        let line = finished.stdout.lines().find(|line| line.starts_with("\"Revision\""));
        line.and_then(|line| line.rsplit(' ').next()?.parse().ok())
            .unwrap_or_else(|| panic!("no revision in: {}{}", finished.stdout, finished.stderr))
    }

    fn substitute(&self, text: &str) -> String {
        let mut result = text.to_owned();
        for (name, id) in &self.ids {
            result = result.replace(&format!("{{{name}}}"), id);
        }
        for (name, revision) in &self.revisions {
            result = result.replace(&format!("{{{name}}}"), &revision.to_string());
            for more in 1..=9 {
                result = result.replace(&format!("{{{name}+{more}}}"), &(revision + more).to_string());
                result = result.replace(&format!("{{{name}-{more}}}"), &(revision - more).to_string());
            }
        }
        result
    }
}
