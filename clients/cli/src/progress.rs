//! The bar of long work: drawn on standard error, and only if that is a terminal.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

/// A bar that fills by bytes; gone from the screen once it is dropped.
pub struct Bytes(ProgressBar);

impl Bytes {
    pub fn start(what: &'static str, total: u64) -> Bytes {
        let template =
            "{prefix:>10} {wide_bar} {binary_bytes}/{binary_total_bytes} {binary_bytes_per_sec} {eta}";
        let style = ProgressStyle::with_template(template).expect("a constant template");
        let bar = ProgressBar::new(total).with_style(style).with_prefix(what);
        bar.enable_steady_tick(Duration::from_millis(250));
        Bytes(bar)
    }

    /// The total may become known, or better known, on the way.
    pub fn at(&self, done: u64, total: u64) {
        self.0.set_length(total.max(done));
        self.0.set_position(done);
    }

    /// `input`, whose reading fills the bar.
    pub fn follow<R: std::io::Read>(&self, input: R) -> impl std::io::Read {
        self.0.wrap_read(input)
    }
}

/// A bar that fills by keys; gone from the screen once it is dropped.
pub struct Keys(ProgressBar);

impl Keys {
    pub fn start(what: &'static str, total: u64) -> Keys {
        let template = "{prefix:>10} {wide_bar} {human_pos}/{human_len} keys {per_sec} {eta}";
        let style = ProgressStyle::with_template(template).expect("a constant template");
        let bar = ProgressBar::new(total).with_style(style).with_prefix(what);
        bar.enable_steady_tick(Duration::from_millis(250));
        Keys(bar)
    }

    pub fn at(&self, done: u64, total: u64) {
        self.0.set_length(total.max(done));
        self.0.set_position(done);
    }
}

impl Drop for Keys {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

/// A line about work without an end; gone from the screen once it is dropped.
pub struct Status(ProgressBar);

impl Status {
    pub fn start(what: &'static str) -> Status {
        let style =
            ProgressStyle::with_template("{prefix:>10} {spinner} {wide_msg}").expect("a constant template");
        let line = ProgressBar::new_spinner().with_style(style).with_prefix(what);
        line.enable_steady_tick(Duration::from_millis(250));
        Status(line)
    }

    pub fn say(&self, text: &str) {
        self.0.set_message(text.to_owned());
    }
}

impl Drop for Status {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

impl Drop for Bytes {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
