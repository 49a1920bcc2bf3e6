//! After a restart: reads back what happened since the last audit and lays it beside what the clients know.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use prost::bytes::Bytes;
use tenure_grpc::etcdserverpb::{kv_client::KvClient, lease_client::LeaseClient};
use tenure_proto::etcdserverpb::{
    CompactionRequest, LeaseLeasesRequest, LeaseTimeToLiveRequest, RangeRequest,
};
use tenure_proto::mvccpb::{Event, KeyValue};

use crate::BOUND;
use crate::journal::{Entries, Journal, Read};
use crate::model::{self, Pairs, Write};
use crate::watcher::{self, Change, Watcher};

/// The state as of the last audit.
pub struct Audit {
    revision: i64,
    pairs: Pairs,
    leases: BTreeMap<i64, i64>,
}

/// What an audit saw, for the log.
pub struct Found {
    acknowledged: usize,
    unanswered: usize,
    matched: usize,
    reads: usize,
    leases: usize,
    revision: i64,
}

impl Audit {
    pub fn new() -> Audit {
        Audit { revision: 1, pairs: Pairs::new(), leases: BTreeMap::new() }
    }

    pub async fn run(&mut self, endpoint: &str, journal: &Journal, watchers: &mut [Watcher]) -> Found {
        let mut entries = std::mem::take(&mut *journal.entries());
        let mut found = Found {
            acknowledged: entries.acknowledged.len(),
            unanswered: entries.unanswered.len(),
            matched: 0,
            reads: entries.reads.len(),
            leases: 0,
            revision: 0,
        };
        let (revision, pairs) = everything(endpoint, 0).await;
        let history = history(endpoint, self.revision, revision).await;
        let middle = self.revision + (revision - self.revision) / 2;
        let mut middle_pairs = self.pairs.clone();

        let mut reads = BTreeMap::<i64, Vec<Read>>::new();
        for read in entries.reads.drain(..) {
            reads.entry(read.revision).or_default().push(read);
        }
        self.check_reads(reads.remove(&self.revision));
        for (at, events) in &history {
            assert_eq!(*at, self.revision + 1, "a revision is missing");
            found.matched += usize::from(self.explain(&mut entries, *at, events));
            model::apply(&mut self.pairs, events);
            self.revision = *at;
            self.check_reads(reads.remove(at));
            if *at == middle {
                middle_pairs = self.pairs.clone();
            }
        }
        assert!(entries.acknowledged.is_empty(), "acknowledged and lost: {:?}", entries.acknowledged);
        assert!(reads.is_empty(), "reads of revisions that are not there: {:?}", reads.keys());
        assert_eq!(
            self.pairs.values().collect::<Vec<_>>(),
            pairs.iter().collect::<Vec<_>>(),
            "the pairs as they are now"
        );
        let (_, pairs) = everything(endpoint, middle).await;
        assert_eq!(
            middle_pairs.values().collect::<Vec<_>>(),
            pairs.iter().collect::<Vec<_>>(),
            "as of revision {middle}"
        );
        for watcher in watchers {
            watcher.must_have_seen(&history).await;
        }
        self.check_leases(endpoint, entries).await;
        found.leases = self.leases.len();
        found.revision = self.revision;
        found
    }

    /// Forgets history up to some revision that all have seen; the next kill may come while that is still being done.
    pub async fn compact(&self, endpoint: &str) {
        let mut client = KvClient::connect(endpoint.to_owned()).await.expect("the server is ready");
        let request = CompactionRequest { revision: self.revision, physical: false };
        match client.compact(request).await {
            Ok(_) => {}
            // Nothing was written since the last compaction.
            Err(status) if status.message().contains("has been compacted") => {}
            Err(status) => panic!("compacting at {}: {status:?}", self.revision),
        }
    }

    /// The events of a revision must be what exactly one request would make of the state before it. True if it is only now
    /// known that this request happened, or when.
    fn explain(&self, entries: &mut Entries, revision: i64, events: &[Event]) -> bool {
        let events: Vec<Event> = events.iter().cloned().map(|event| self.without_before(event)).collect();
        if let Some(write) = entries.acknowledged.remove(&revision) {
            assert_eq!(
                write.events(&self.pairs, revision),
                events,
                "revision {revision} was acknowledged for {write:?}"
            );
            return false;
        }
        // The answer to a revoke does not say at which revision it happened. It cannot happen twice: it leaves no keys.
        if let Some(lease) = self.lease_of_first(&events)
            && (entries.revoked.contains(&lease) || entries.revoked_perhaps.contains(&lease))
            && (Write::Revoke { lease }).events(&self.pairs, revision) == events
        {
            return true;
        }
        let whose = entries.unanswered.iter().position(|write| write.events(&self.pairs, revision) == events);
        let Some(whose) = whose else {
            panic!(
                "revision {revision} holds what nobody asked for: {events:?}\nthe next acknowledged: {:?}\nunanswered: {:?}",
                entries.acknowledged.iter().next(),
                entries.unanswered
            );
        };
        entries.unanswered.swap_remove(whose);
        true
    }

    fn lease_of_first(&self, events: &[Event]) -> Option<i64> {
        let key = &events.first()?.kv.as_ref()?.key;
        Some(self.pairs.get(key)?.lease)
    }

    /// Checks the pair before, and takes it off, for not all who tell of events tell of it.
    fn without_before(&self, mut event: Event) -> Event {
        let key = &event.kv.as_ref().expect("every event has its pair").key;
        assert_eq!(event.prev_kv.as_ref(), self.pairs.get(key), "the pair before {event:?}");
        event.prev_kv = None;
        event
    }

    fn check_reads(&self, reads: Option<Vec<Read>>) {
        for read in reads.into_iter().flatten() {
            let truth = self.pairs.get(&read.key);
            assert_eq!(
                read.pair.as_ref(),
                truth,
                "what was read of {:?} at revision {}",
                read.key,
                read.revision
            );
        }
    }

    async fn check_leases(&mut self, endpoint: &str, entries: Entries) {
        let mut client = LeaseClient::connect(endpoint.to_owned()).await.expect("the server is ready");
        let listed = client.lease_leases(LeaseLeasesRequest {}).await.expect("a list of leases").into_inner();
        let listed: BTreeSet<i64> = listed.leases.iter().map(|lease| lease.id).collect();

        let mut certain = std::mem::take(&mut self.leases);
        certain.extend(entries.granted);
        let mut perhaps = entries.granted_perhaps;
        certain.retain(|lease, _| !entries.revoked.contains(lease));
        for lease in &entries.revoked_perhaps {
            perhaps.extend(certain.remove_entry(lease));
        }
        let lost: Vec<_> = certain.keys().filter(|lease| !listed.contains(lease)).collect();
        assert!(lost.is_empty(), "acknowledged and lost leases: {lost:?}");
        let mut unasked = 0;
        for lease in listed {
            let known = certain.get(&lease).or(perhaps.get(&lease)).copied();
            unasked += usize::from(known.is_none());
            let request = LeaseTimeToLiveRequest { id: lease, keys: true };
            let told = client.lease_time_to_live(request).await.expect("a lease's time").into_inner();
            assert_eq!(told.granted_ttl, known.unwrap_or(told.granted_ttl), "the TTL of lease {lease}");
            assert!(
                (1..=told.granted_ttl).contains(&told.ttl),
                "lease {lease} has {} s of {}",
                told.ttl,
                told.granted_ttl
            );
            let mut keys = told.keys;
            keys.sort();
            assert_eq!(keys, self.keys_on(lease), "the keys of lease {lease}");
            self.leases.insert(lease, told.granted_ttl);
        }
        assert!(unasked <= entries.granted_perhaps_somehow, "{unasked} leases that nobody asked for");
        let orphan =
            self.pairs.values().find(|pair| pair.lease != 0 && !self.leases.contains_key(&pair.lease));
        assert_eq!(orphan, None, "a pair on a lease that is not there");
    }

    fn keys_on(&self, lease: i64) -> Vec<Bytes> {
        self.pairs.values().filter(|pair| pair.lease == lease).map(|pair| pair.key.clone()).collect()
    }
}

impl fmt::Display for Found {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Found { acknowledged, unanswered, matched, reads, leases, revision } = self;
        write!(
            out,
            "{acknowledged} writes acknowledged, {unanswered} unanswered, {matched} revisions of those or of revokes, \
             {reads} reads, {leases} leases, revision {revision}"
        )
    }
}

/// All pairs as of a revision (0 = now), and the revision now.
async fn everything(endpoint: &str, revision: i64) -> (i64, Vec<KeyValue>) {
    let client = KvClient::connect(endpoint.to_owned()).await.expect("the server is ready");
    let zero = Bytes::from_static(b"\0");
    let request = RangeRequest { key: zero.clone(), range_end: zero, revision, ..Default::default() };
    let mut client = client.max_decoding_message_size(usize::MAX);
    let response = client.range(request).await.expect("a read of everything").into_inner();
    (response.header.expect("a header").revision, response.kvs)
}

/// Everything that happened after `from` up to `to`.
async fn history(endpoint: &str, from: i64, to: i64) -> Vec<Change> {
    let mut history: Vec<Change> = Vec::new();
    let mut last = from;
    let mut stream = watcher::open(endpoint, b"\0", b"\0", from + 1).await;
    while last < to {
        let response = tokio::time::timeout(BOUND, stream.message()).await;
        let response =
            response.unwrap_or_else(|_| panic!("the history after {last} never came, and {to} is its end"));
        let response = response.expect("the server lives").expect("a watch does not end");
        history.extend(watcher::changes(response, last));
        last = history.last().map_or(last, |(revision, _)| *revision);
    }
    history
}
