//! Where keys come from: a running cluster, read in pages at one revision, or a snapshot file; and two of them walked side by side.

use std::cmp::Ordering;
use std::collections::VecDeque;
use std::future::IntoFuture;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tenure_client::proto::mvccpb::KeyValue;
use tenure_client::{Client, Error, end_of_prefix};

use super::etcd_file::EtcdFile;
use crate::failure::Failure;
use crate::running::warn;

/// The room of a Tenure server itself: nobody copies into it.
pub const RESERVED: &[u8] = b"/_tenure/";
/// How long members that cannot be reached are waited for.
const PATIENCE: Duration = Duration::from_secs(120);
/// What a page should have. Its first question is for few keys, since nobody knows how large they are.
const PAGE_BYTES: usize = 4 << 20;
const PAGE_KEYS_FIRST: i64 = 32;
const PAGE_KEYS_MAX: i64 = 4096;

/// A range of keys, its ends as on the wire.
#[derive(Clone, Debug)]
pub struct Span {
    pub start: Vec<u8>,
    pub end: Vec<u8>,
}

impl Span {
    /// All keys that begin so; all, if it is empty.
    pub fn of_prefix(prefix: &str) -> Span {
        let start = if prefix.is_empty() { vec![0] } else { prefix.as_bytes().to_vec() };
        Span { start, end: end_of_prefix(prefix.as_bytes()).to_vec() }
    }
}

#[derive(Clone)]
pub enum Source {
    Live(Client),
    File(Arc<EtcdFile>),
}

impl Source {
    /// The newest revision.
    pub async fn revision(&self) -> Result<i64, Failure> {
        match self {
            Source::Live(client) => Ok(latest(client).await?),
            Source::File(file) => Ok(file.revision),
        }
    }

    /// How many keys there are; `revision` 0: now.
    pub async fn count(&self, span: &Span, revision: i64) -> Result<u64, Error> {
        match self {
            Source::Live(client) => {
                let ask = || {
                    client.kv().get(&span.start).to(&span.end).revision(revision).count_only().into_future()
                };
                let found = patiently(ask).await?;
                Ok(u64::try_from(found.count).unwrap_or_default())
            }
            Source::File(file) => Ok(file.count(&span.start, &span.end)),
        }
    }

    /// `revision` 0: as it is at each page.
    pub fn walk(&self, span: &Span, revision: i64) -> Walk {
        Walk {
            source: Some(self.clone()),
            span: span.clone(),
            revision,
            limit: PAGE_KEYS_FIRST,
            held: VecDeque::new(),
            reserved: 0,
        }
    }
}

/// Why a walk ended before its end.
#[derive(Debug)]
pub enum Broken {
    /// The revision is gone: begin anew with a newer one.
    Compacted,
    Failed(Failure),
}

impl From<Failure> for Broken {
    fn from(failure: Failure) -> Broken {
        Broken::Failed(failure)
    }
}

impl From<Error> for Broken {
    fn from(error: Error) -> Broken {
        match error {
            Error::Compacted { .. } => Broken::Compacted,
            error => Broken::Failed(error.into()),
        }
    }
}

/// Keys in their order, but for those of the server's own room.
pub struct Walk {
    /// None: all is held that there is.
    source: Option<Source>,
    span: Span,
    revision: i64,
    limit: i64,
    pub held: VecDeque<KeyValue>,
    /// How many were passed over.
    pub reserved: u64,
}

impl Walk {
    /// One without keys.
    pub fn nothing() -> Walk {
        let span = Span { start: Vec::new(), end: Vec::new() };
        Walk { source: None, span, revision: 0, limit: 0, held: VecDeque::new(), reserved: 0 }
    }

    /// Whether something is held, or nothing is left to be fetched.
    pub fn is_ready(&self) -> bool {
        !self.held.is_empty() || self.source.is_none()
    }

    /// Fetches the next page.
    pub async fn fetch(&mut self) -> Result<(), Broken> {
        let (pairs, more) = match &self.source {
            None => return Ok(()),
            Some(Source::Live(client)) => self.ask(client).await?,
            Some(Source::File(file)) => {
                let pairs = file.page(&self.span.start, &self.span.end, PAGE_BYTES)?;
                let more = !pairs.is_empty();
                (pairs, more)
            }
        };
        let bytes: usize = pairs.iter().map(|pair| pair.key.len() + pair.value.len()).sum();
        let fitting =
            self.limit.saturating_mul(PAGE_BYTES as i64) / i64::try_from(bytes).unwrap_or(i64::MAX).max(1);
        self.limit = fitting.clamp(1, (self.limit * 4).min(PAGE_KEYS_MAX));
        if let Some(last) = pairs.last() {
            self.span.start = [&last.key[..], &[0]].concat();
        }
        if !more {
            self.source = None;
        }
        for pair in pairs {
            match pair.key.starts_with(RESERVED) {
                true => self.reserved += 1,
                false => self.held.push_back(pair),
            }
        }
        Ok(())
    }

    async fn ask(&self, client: &Client) -> Result<(Vec<KeyValue>, bool), Error> {
        let get = client.kv().get(&self.span.start).to(&self.span.end);
        let get = get.revision(self.revision).limit(self.limit);
        let found = patiently(|| get.clone().into_future()).await?;
        Ok((found.pairs, found.more))
    }
}

/// A key of two walks.
pub enum Step {
    OnlyLeft(KeyValue),
    OnlyRight(KeyValue),
    Both(KeyValue, KeyValue),
}

/// The next of two walks that are both ready; None: both have ended.
pub fn step(left: &mut Walk, right: &mut Walk) -> Option<Step> {
    let order = match (left.held.front(), right.held.front()) {
        (None, None) => return None,
        (Some(_), None) => Ordering::Less,
        (None, Some(_)) => Ordering::Greater,
        (Some(one), Some(other)) => one.key.cmp(&other.key),
    };
    match order {
        Ordering::Less => left.held.pop_front().map(Step::OnlyLeft),
        Ordering::Greater => right.held.pop_front().map(Step::OnlyRight),
        Ordering::Equal => {
            left.held.pop_front().zip(right.held.pop_front()).map(|(one, other)| Step::Both(one, other))
        }
    }
}

/// The newest revision of a running cluster.
pub async fn latest(client: &Client) -> Result<i64, Error> {
    Ok(patiently(|| client.kv().get("\0").count_only().into_future()).await?.revision)
}

/// Asks until somebody answers, for as long as operators take to bring a member back. Only for what may be done twice.
pub async fn patiently<T, A: Future<Output = Result<T, Error>>>(ask: impl Fn() -> A) -> Result<T, Error> {
    let (began, mut said) = (Instant::now(), false);
    loop {
        match ask().await {
            Err(Error::Unavailable(text) | Error::Unknown(text)) if began.elapsed() < PATIENCE => {
                if !said {
                    warn(&format!("{text}; trying on for {} s", PATIENCE.as_secs()));
                    said = true;
                }
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
            done => return done,
        }
    }
}
