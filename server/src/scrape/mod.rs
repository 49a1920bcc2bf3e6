//! The page of metrics. What was counted on the way stands in its registry already; what can be read off the state is read here, when
//! somebody asks, so that nobody else pays for it. On a thread of its own, in steps: requests go on meanwhile.
//!
//! | file       | what it reads                                                     |
//! |------------|-------------------------------------------------------------------|
//! | `standing` | who leads, how far the log is, what is under way                  |
//! | `holdings` | keys, leases, watches, bytes                                      |
//! | `network`  | the other members and the clients                                 |
//! | `recipes`  | sessions, locks, elections, the registry: a walk over their keys  |

mod holdings;
mod network;
mod recipes;
mod standing;

use std::sync::Arc;

use tokio::sync::Mutex;

use crate::ids::{ClusterId, MemberId};
use crate::metrics::{Counter, Process, Registry};
use crate::node::Node;
use crate::simulation;
use crate::traffic::Traffic;
use holdings::Holdings;
use network::Network;
use recipes::Recipes;
use standing::Standing;

/// Makes pages for whoever asks, one at a time.
pub struct Scrape {
    /// None while a page is being made of them.
    parts: Mutex<Option<Parts>>,
    registry: Arc<Registry>,
    served: Counter,
}

struct Parts {
    standing: Standing,
    holdings: Holdings,
    network: Network,
    recipes: Recipes,
    process: Process,
}

impl Scrape {
    /// `clients`: what goes over all connections of the client port.
    pub fn new(
        node: &Node,
        (cluster, member): (ClusterId, MemberId),
        registry: Arc<Registry>,
        clients: Arc<Traffic>,
    ) -> Scrape {
        let started_unix_ms = node.clock.unix_ms().saturating_sub(node.clock.now_ms());
        let parts = Parts {
            standing: Standing::new(node, cluster, member, &registry),
            holdings: Holdings::new(node, &registry),
            network: Network::new(node, member, registry.clone(), clients),
            recipes: Recipes::new(node, &registry),
            process: Process::new(&registry, started_unix_ms),
        };
        let served = registry.counter(
            ("promhttp_metric_handler_requests_total", "Pages of metrics that were asked for."),
            &[("code", "200")],
        );
        Scrape { parts: Mutex::new(Some(parts)), registry, served }
    }

    /// None while this member is stopping.
    pub async fn page(&self) -> Option<String> {
        let mut place = self.parts.lock().await;
        let mut parts = place.take()?;
        self.served.increment(1);
        let registry = self.registry.clone();
        let work = move || {
            parts.standing.read();
            parts.holdings.read();
            parts.network.read();
            parts.recipes.read();
            parts.process.read();
            (registry.page(), parts)
        };
        let (page, parts) = simulation::blocking(work).await.ok()?;
        *place = Some(parts);
        Some(page)
    }
}
