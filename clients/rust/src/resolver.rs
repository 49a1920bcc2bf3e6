//! Who serves: the instances of a service, kept up to date by one watch, and the last that were known while nobody can be asked.
//! A reset never empties the set: what was known stays until a new snapshot is whole.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tenure_proto::tenure::v1::service_range::Which;
use tenure_proto::tenure::v1::watch_instances_response::Event;
use tenure_proto::tenure::v1::{
    Instance, InstanceSelector, ServiceRange, WatchInstancesRequest, WatchInstancesResponse,
};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::balance::{Balance, Picked};
use crate::client::Client;
use crate::clock::Moment;
use crate::error::Error;
use crate::feed::Feed;
use crate::registry::registry;

/// The instances of a service that can be sent work.
///
/// ```no_run
/// # async fn call(host: &str, port: u32) {}
/// # async fn example(client: tenure_client::Client) -> Result<(), tenure_client::Error> {
/// let web = client.registry().resolve("web").await?;
/// while let Some(picked) = web.pick() {
///     let endpoint = &picked.registration().endpoints[0];
///     call(&endpoint.host, endpoint.port).await;
/// }
/// # Ok(())
/// # }
/// ```
pub struct Resolver {
    known: watch::Receiver<Known>,
    /// What [`Resolver::changed`] told of last.
    seen: Arc<Vec<Instance>>,
    balance: Balance,
    watching: JoinHandle<()>,
}

#[derive(Clone)]
struct Known {
    instances: Arc<Vec<Instance>>,
    /// When the registry was heard of last.
    heard: Moment,
    failed: Option<Error>,
}

impl Drop for Resolver {
    fn drop(&mut self) {
        self.watching.abort();
    }
}

impl Resolver {
    pub(crate) async fn start(client: Client, service: &str) -> Result<Resolver, Error> {
        let question = WatchInstancesRequest {
            services: Some(ServiceRange { which: Some(Which::Service(service.to_owned())) }),
            selector: Some(InstanceSelector { routable: true, ..InstanceSelector::default() }),
            ..WatchInstancesRequest::default()
        };
        let feed = Feed::new(client, question, |channel, request| {
            Box::pin(async move { registry(channel).watch(request).await })
        });
        let seen: Arc<Vec<Instance>> = Arc::default();
        let nothing = Known { instances: seen.clone(), heard: Moment::now(), failed: None };
        let (tell, known) = watch::channel(nothing);
        let watching = tokio::spawn(follow(feed, tell));
        let mut resolver = Resolver { known, seen, balance: Balance::default(), watching };
        resolver.changed().await?;
        Ok(resolver)
    }

    /// Those that are known to be there, in the order of their ids; while nobody can be asked, the last that were.
    pub fn instances(&self) -> Arc<Vec<Instance>> {
        self.known.borrow().instances.clone()
    }

    /// How long ago the registry was heard of: it speaks up every ten seconds at least.
    pub fn age(&self) -> Duration {
        Moment::now().since(self.known.borrow().heard)
    }

    /// Returns when [`Resolver::instances`] has something that it had not when this returned last.
    pub async fn changed(&mut self) -> Result<(), Error> {
        loop {
            {
                let known = self.known.borrow_and_update();
                if let Some(error) = &known.failed {
                    return Err(error.clone());
                }
                if !Arc::ptr_eq(&known.instances, &self.seen) {
                    self.seen = known.instances.clone();
                    return Ok(());
                }
            }
            if self.known.changed().await.is_err() {
                return Err(Error::refused("the registry is not watched any more"));
            }
        }
    }

    /// One to send work to: of two that are drawn by chance, the one with less under way from here for its weight. None: there
    /// is nobody. The work counts as under way until what this gives is dropped.
    pub fn pick(&self) -> Option<Picked> {
        self.balance.pick(&self.instances())
    }
}

async fn follow(mut feed: Feed<WatchInstancesRequest, WatchInstancesResponse>, tell: watch::Sender<Known>) {
    let (mut mirror, mut opening) = (Mirror::default(), 0);
    loop {
        let reply = match feed.next().await {
            Ok(reply) => reply,
            Err(error) => {
                tell.send_modify(|known| known.failed = Some(error));
                return;
            }
        };
        if feed.openings != opening {
            opening = feed.openings;
            mirror.begin_anew();
        }
        let changed = reply.event.is_some_and(|event| mirror.take(event));
        feed.question.after_revision = mirror.revision;
        tell.send_modify(|known| {
            known.heard = Moment::now();
            if changed {
                known.instances = Arc::new(mirror.instances.values().cloned().collect());
            }
        });
    }
}

/// What a watch's messages amount to.
#[derive(Default)]
struct Mirror {
    /// By service and id.
    instances: BTreeMap<(String, String), Instance>,
    /// Up to which everything is known; 0: nothing yet.
    revision: i64,
    /// Parts of a snapshot that is not whole.
    coming: BTreeMap<(String, String), Instance>,
}

impl Mirror {
    /// Parts of a snapshot that broke off are worth nothing.
    fn begin_anew(&mut self) {
        self.coming.clear();
    }

    /// Whether the set may have changed.
    fn take(&mut self, event: Event) -> bool {
        match event {
            Event::SnapshotPart(part) => {
                self.coming
                    .extend(part.instances.into_iter().map(|instance| (identity(&instance), instance)));
                false
            }
            Event::SnapshotEnd(end) => {
                self.instances = std::mem::take(&mut self.coming);
                self.revision = end.revision;
                true
            }
            Event::Delta(delta) if delta.revision > self.revision => {
                self.instances
                    .extend(delta.upserts.into_iter().map(|instance| (identity(&instance), instance)));
                for removal in delta.removals {
                    self.instances.remove(&(removal.service, removal.id));
                }
                self.revision = delta.revision;
                true
            }
            Event::Delta(_) => false,
            Event::Bookmark(bookmark) => {
                self.revision = self.revision.max(bookmark.revision);
                false
            }
            Event::Reset(_) => {
                self.coming.clear();
                // If the stream breaks before the snapshot is whole, a whole one is needed.
                self.revision = 0;
                false
            }
        }
    }
}

fn identity(instance: &Instance) -> (String, String) {
    let registration = instance.registration.as_ref();
    registration
        .map(|registration| (registration.service.clone(), registration.id.clone()))
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use tenure_proto::tenure::v1::Registration;
    use tenure_proto::tenure::v1::watch_instances_response::{
        Bookmark, Delta, Removal, Reset, SnapshotEnd, SnapshotPart,
    };

    use super::*;

    fn instance(id: &str) -> Instance {
        let registration = Registration { service: "web".into(), id: id.into(), ..Registration::default() };
        Instance { registration: Some(registration), ..Instance::default() }
    }

    fn part(ids: &[&str]) -> Event {
        Event::SnapshotPart(SnapshotPart { instances: ids.iter().map(|id| instance(id)).collect() })
    }

    fn end(revision: i64) -> Event {
        Event::SnapshotEnd(SnapshotEnd { revision })
    }

    fn delta(revision: i64, upserts: &[&str], removals: &[&str]) -> Event {
        let removal = |id: &&str| Removal { service: "web".into(), id: (*id).into(), ..Removal::default() };
        Event::Delta(Delta {
            revision,
            upserts: upserts.iter().map(|id| instance(id)).collect(),
            removals: removals.iter().map(removal).collect(),
        })
    }

    fn ids(mirror: &Mirror) -> Vec<&str> {
        mirror.instances.keys().map(|(_, id)| id.as_str()).collect()
    }

    #[test]
    fn a_reset_leaves_what_was_known_until_the_new_snapshot_is_whole() {
        let mut mirror = Mirror::default();
        assert!(!mirror.take(part(&["a"])));
        assert!(!mirror.take(part(&["b"])));
        assert!(ids(&mirror).is_empty());
        assert!(mirror.take(end(10)));
        assert_eq!(ids(&mirror), ["a", "b"]);
        mirror.take(Event::Reset(Reset { compact_revision: 20 }));
        mirror.take(part(&["c"]));
        assert_eq!((ids(&mirror), mirror.revision), (vec!["a", "b"], 0));
        // The stream breaks; parts of the broken snapshot must not come back.
        mirror.begin_anew();
        mirror.take(part(&["d"]));
        assert!(mirror.take(end(30)));
        assert_eq!((ids(&mirror), mirror.revision), (vec!["d"], 30));
    }

    #[test]
    fn deltas_count_once_and_in_order() {
        let mut mirror = Mirror::default();
        mirror.take(end(10));
        assert!(mirror.take(delta(11, &["a", "b"], &[])));
        assert!(mirror.take(delta(12, &[], &["a"])));
        assert!(!mirror.take(delta(11, &["a"], &["b"])), "told again after a reconnect");
        mirror.take(Event::Bookmark(Bookmark { revision: 20 }));
        assert!(!mirror.take(delta(20, &["c"], &[])));
        assert_eq!((ids(&mirror), mirror.revision), (vec!["b"], 20));
    }
}
