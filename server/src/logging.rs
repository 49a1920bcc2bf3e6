//! Log lines: what the server tells its operator. One line an event, as JSON with etcd's keys (`level`, `ts`, `caller`,
//! `msg`, then the event's own fields) or as plain text. Knows nothing of the flags that chose it.
//!
//! The calendar time in a line is read here by the subscriber and nowhere else used.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use tracing::field::{Field, Visit};
use tracing::level_filters::{LevelFilter, STATIC_MAX_LEVEL};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    pub level: LevelFilter,
    pub format: Format,
    /// Each line goes to all of them. Never empty.
    pub outputs: Vec<Output>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// One JSON object a line.
    Json,
    /// For reading with one's own eyes.
    Console,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    Stderr,
    Stdout,
    /// Appended to, made when missing.
    File(PathBuf),
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(
        "cannot open the log file {path}: {source}; give --log-outputs a path this user may write, or stderr"
    )]
    Open { path: PathBuf, source: io::Error },
    #[error("log lines already have a destination; logging::start runs once a process")]
    AlreadyStarted,
}

/// Sends this process's events to the outputs. To be called once, before the first event.
pub fn start(settings: &Settings) -> Result<(), Error> {
    let sinks = settings.outputs.iter().map(open).collect::<Result<Vec<_>, _>>()?;
    let lines = tracing_subscriber::fmt::layer().with_ansi(false).with_writer(Mutex::new(Tee(sinks)));
    let layer = match settings.format {
        Format::Json => lines.event_format(JsonLine).boxed(),
        Format::Console => lines.compact().boxed(),
    };
    tracing_subscriber::registry()
        .with(layer.with_filter(levels(settings.level)))
        .try_init()
        .map_err(|_| Error::AlreadyStarted)?;
    if settings.level > STATIC_MAX_LEVEL {
        tracing::warn!(asked = %settings.level, most = %STATIC_MAX_LEVEL, "this build holds no finer log lines");
    }
    Ok(())
}

const TIRELESS: [&str; 4] = [
    "openraft::core::heartbeat",
    "openraft::core::raft_core",
    "openraft::engine::handler::replication_handler",
    "openraft::replication",
];

/// The libraries below speak to their own developers at info: of them only warnings are let through, and what they
/// call info when somebody looks for the cause of something.
fn levels(ours: LevelFilter) -> Targets {
    let theirs = if ours >= LevelFilter::DEBUG { LevelFilter::INFO } else { ours.min(LevelFilter::WARN) };
    // Of a peer that is away, each failed heartbeat and message is a warning to these; raft/network.rs says it once.
    let tireless = if ours >= LevelFilter::DEBUG { LevelFilter::INFO } else { ours.min(LevelFilter::ERROR) };
    Targets::new()
        .with_default(theirs)
        .with_targets(TIRELESS.map(|target| (target, tireless)))
        .with_target("tenure", ours)
}

fn open(output: &Output) -> Result<Box<dyn Write + Send>, Error> {
    Ok(match output {
        Output::Stderr => Box::new(io::stderr()),
        Output::Stdout => Box::new(io::stdout()),
        Output::File(path) => Box::new(append_to(path)?),
    })
}

fn append_to(path: &Path) -> Result<File, Error> {
    let opened = OpenOptions::new().create(true).append(true).open(path);
    opened.map_err(|source| Error::Open { path: path.to_path_buf(), source })
}

/// Writes the same bytes to all. One that fails does not keep them from the others.
struct Tee(Vec<Box<dyn Write + Send>>);

impl Write for Tee {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.each(|sink| sink.write_all(bytes)).map(|()| bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.each(|sink| sink.flush())
    }
}

impl Tee {
    /// The first error, after all had their turn.
    fn each(&mut self, deed: impl Fn(&mut dyn Write) -> io::Result<()>) -> io::Result<()> {
        let mut outcome = Ok(());
        for sink in &mut self.0 {
            outcome = outcome.and(deed(sink.as_mut()));
        }
        outcome
    }
}

/// One event as one JSON object, keys in etcd's order. Fields of the spans around the event are left out: an event
/// names what it is about itself.
struct JsonLine;

impl<S, N> FormatEvent<S, N> for JsonLine
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let metadata = event.metadata();
        let mut ts = String::new();
        SystemTime.format_time(&mut Writer::new(&mut ts))?;
        let mut fields = JsonFields::default();
        event.record(&mut fields);

        write!(writer, "{{\"level\":\"{}\",\"ts\":\"{ts}\"", level_name(*metadata.level()))?;
        if let (Some(file), Some(line)) = (metadata.file(), metadata.line()) {
            write!(writer, ",\"caller\":{}", quoted(&format!("{}:{line}", last_two_parts(file))))?;
        }
        writeln!(writer, ",\"msg\":{}{}}}", quoted(&fields.message), fields.rest)
    }
}

#[derive(Default)]
struct JsonFields {
    message: String,
    /// Every other field as `,"key":value`.
    rest: String,
}

impl JsonFields {
    fn push(&mut self, field: &Field, json: &str) {
        self.rest.push_str(&format!(",{}:{json}", quoted(field.name())));
    }
}

impl Visit for JsonFields {
    fn record_i64(&mut self, field: &Field, value: i64) {
        self.push(field, &value.to_string());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.push(field, &value.to_string());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.push(field, if value { "true" } else { "false" });
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "message" {
            self.message = value.to_owned();
        } else {
            self.push(field, &quoted(value));
        }
    }

    /// Also receives floating-point numbers, which print as text: JSON has no word for their infinities.
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.record_str(field, &format!("{value:?}"));
    }
}

/// etcd's words: it has no level below debug.
fn level_name(level: Level) -> &'static str {
    match level {
        Level::ERROR => "error",
        Level::WARN => "warn",
        Level::INFO => "info",
        Level::DEBUG | Level::TRACE => "debug",
    }
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// `server/src/node/lease.rs` -> `node/lease.rs`: enough to find the line.
fn last_two_parts(file: &str) -> &str {
    file.rmatch_indices('/').nth(1).map_or(file, |(slash, _)| &file[slash + 1..])
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::sync::Arc;

    use super::*;

    #[derive(Clone, Default)]
    struct Page(Arc<Mutex<Vec<u8>>>);

    impl Write for Page {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    struct Broken;

    impl Write for Broken {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::StorageFull.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn lines(level: LevelFilter, speak: impl FnOnce()) -> Vec<serde_json::Value> {
        let page = Page::default();
        let sinks: Vec<Box<dyn Write + Send>> = vec![Box::new(Broken), Box::new(page.clone())];
        let layer = tracing_subscriber::fmt::layer()
            .log_internal_errors(false)
            .with_writer(Mutex::new(Tee(sinks)))
            .event_format(JsonLine)
            .with_filter(levels(level));
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), speak);
        let bytes = page.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    #[test]
    fn an_event_is_one_json_line_with_etcds_keys() {
        let said = lines(LevelFilter::INFO, || {
            tracing::warn!(lease = 7_i64, ok = true, error = "a \"quoted\"\nword", member = %"8e9e", "line {}", 1);
        });
        assert_eq!(said.len(), 1);
        let line = &said[0];
        assert_eq!(line["level"], "warn");
        assert_eq!(line["msg"], "line 1");
        assert_eq!(line["lease"], 7);
        assert_eq!(line["ok"], true);
        assert_eq!(line["error"], "a \"quoted\"\nword");
        assert_eq!(line["member"], "8e9e");
        assert!(line["caller"].as_str().unwrap().starts_with("src/logging.rs:"), "{line}");
        assert!(line["ts"].as_str().unwrap().ends_with('Z'), "{line}");
    }

    #[test]
    fn libraries_are_heard_one_level_later() {
        let speak = || {
            tracing::info!(target: "tenured::node", "ours");
            tracing::info!(target: "openraft", "theirs");
            tracing::warn!(target: "openraft", "their warning");
        };
        let messages =
            |level| lines(level, speak).iter().map(|line| line["msg"].to_string()).collect::<Vec<_>>();
        assert_eq!(messages(LevelFilter::INFO), ["\"ours\"", "\"their warning\""]);
        assert_eq!(messages(LevelFilter::DEBUG).len(), 3);
        assert!(messages(LevelFilter::ERROR).is_empty());
    }

    #[test]
    fn a_file_that_cannot_be_opened_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let settings = Settings {
            level: LevelFilter::INFO,
            format: Format::Json,
            outputs: vec![Output::File(directory.path().to_path_buf())],
        };
        let error = start(&settings).unwrap_err().to_string();
        assert!(error.contains(&directory.path().display().to_string()), "{error}");
    }
}
