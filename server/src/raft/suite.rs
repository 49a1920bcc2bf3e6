//! The consensus library's own test suite for storage, run on our log and our state machine.

use std::sync::Arc;

use openraft::testing::log::{StoreBuilder, Suite};
use tenure_disk::Files;
use tenure_disk::store::{Store, StoreOptions};
use tenure_disk::wal::{Wal, WalOptions};
use tenure_state::{Effect, Machine, Position};

use super::apply::{Outlet, StateMachine};
use super::durable::Ledger;
use super::log::Log;
use super::snapshot::Outgoing;
use super::types::{Mandate, Reply, TypeConfig};
use super::view::View;
use crate::metrics::Meters;

/// Follows nothing.
pub struct Nobody;

impl Outlet for Nobody {
    fn follow(&self, _at: Position, _effects: Vec<Effect>) {}

    fn restored(&self) {}

    fn led(&self, _mandate: Mandate) {}

    fn answer(&self, _number: u64, _reply: Reply) {}
}

struct Builder;

impl StoreBuilder<TypeConfig, Log, StateMachine, tempfile::TempDir> for Builder {
    async fn build(
        &self,
    ) -> Result<(tempfile::TempDir, Log, StateMachine), openraft::StorageError<TypeConfig>> {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let options =
            WalOptions { segment_bytes: 1 << 16, first_segment_bytes: 1 << 14, ..WalOptions::default() };
        let wal = Wal::open(Arc::new(Files), &dir.path().join("wal"), options).expect("an empty log opens");
        let store =
            Store::open(&dir.path().join("state"), StoreOptions::default()).expect("an empty store opens");
        let view = Arc::new(View::new(Machine::new(1 << 20), store));
        // The suite applies entries that it never wrote to the log.
        let everything = Ledger::new(u64::MAX, Mandate::default()).durable();
        let (outlet, outgoing, meters) = (Arc::new(Nobody), Outgoing::default(), Meters::unread());
        let machine = StateMachine::new(1, view, outlet, 1 << 20, outgoing, everything, meters)
            .expect("an empty store has nothing to misread");
        Ok((dir, Log::new(wal), machine))
    }
}

#[tokio::test]
async fn our_log_and_state_machine_pass_the_librarys_storage_suite() {
    Suite::<TypeConfig, Log, StateMachine, Builder, tempfile::TempDir>::test_all(Builder)
        .await
        .expect("the suite passes");
}
