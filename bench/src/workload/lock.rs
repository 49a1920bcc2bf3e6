//! A lock taken and given back: each client one of its own, or all after the same few, where what counts is how fast it goes from hand to
//! hand. Speaks Tenure's own service where there is one, and else etcd's, which is asked to do the same.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use clap::{Args, ValueEnum};
use tenure_proto::tenure::v1::acquire_lock_response::Outcome as Acquired;
use tenure_proto::tenure::v1::{
    AcquireLockRequest, AcquireLockResponse, InspectLockRequest, LockSpec, ReleaseLockRequest,
    ReleaseLockResponse, release_lock_response,
};
use tenure_proto::v3lockpb::{LockRequest, LockResponse, UnlockRequest};

use crate::failure::Failure;
use crate::grpc::{Connection, Method, decode};
use crate::outcome::Outcome;
use crate::run::{Caller, Turn};
use crate::session::Session;
use crate::workload::lease;

const ACQUIRE: &str = "/tenure.v1.Locks/Acquire";
const RELEASE: &str = "/tenure.v1.Locks/Release";
const INSPECT: &str = "/tenure.v1.Locks/Inspect";
const LOCK: &str = "/v3lockpb.Lock/Lock";
const UNLOCK: &str = "/v3lockpb.Lock/Unlock";
/// Longer than any run: nothing is renewed meanwhile.
const TTL_S: i64 = 3_600;

#[derive(Args, Clone, Debug, Default)]
pub(crate) struct Lock {
    /// Locks that the clients are after, in turn; 0 gives each client its own
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=1_000_000))]
    pub(crate) names: u32,

    /// Which service is spoken to
    #[arg(long, value_enum, default_value_t = Service::Any)]
    pub(crate) service: Service,
}

/// Who gives locks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Service {
    /// Tenure's if the server has it, else etcd's
    #[default]
    Any,
    /// tenure.v1.Locks
    Tenure,
    /// v3lockpb.Lock
    Etcd,
}

impl Lock {
    pub(crate) async fn run(&self, session: &Session) -> Result<Outcome, Failure> {
        let connections = session.connect().await?;
        let tenure = match self.service {
            Service::Tenure => true,
            Service::Etcd => false,
            Service::Any => has_own_service(&connections[0]).await?,
        };
        let leases = lease::grant_many(session, &connections, session.load.clients, TTL_S).await?;
        let names = if self.names == 0 { session.load.clients } else { self.names as usize };
        let taken: Vec<Arc<AtomicBool>> = (0..names).map(|_| Arc::default()).collect();
        let callers = session.callers(&connections, |connection, n| Locker {
            take: connection.method(if tenure { ACQUIRE } else { LOCK }),
            give: connection.method(if tenure { RELEASE } else { UNLOCK }),
            tenure,
            name: format!("bench-lock-{}", n % names),
            lease: leases[n],
            taken: taken[n % names].clone(),
        });
        let measured = session.drive("lock", callers).await?;
        lease::revoke_many(session, &connections, leases).await?;
        let name = if self.names == 0 { "lock".to_owned() } else { format!("lock-on-{names}") };
        let mut outcome = Outcome::of_requests(session, name, measured);
        outcome.unit = "holds";
        Ok(outcome)
    }
}

async fn has_own_service(connection: &Connection) -> Result<bool, Failure> {
    let asked = InspectLockRequest { name: "bench-lock-0".to_owned(), limit: 1 };
    match connection.method(INSPECT).call(&asked).await {
        Ok(_) => Ok(true),
        Err(failure) if failure.code == "Unimplemented" => Ok(false),
        Err(failure) => Err(failure),
    }
}

struct Locker {
    take: Method,
    give: Method,
    tenure: bool,
    name: String,
    lease: i64,
    /// Somebody in this program holds it: the server may not have granted it to anybody else.
    taken: Arc<AtomicBool>,
}

impl Caller for Locker {
    async fn step(&mut self, _: Turn) -> Result<&'static str, Failure> {
        if self.tenure { self.hold().await } else { self.hold_by_key().await }
    }
}

impl Locker {
    async fn hold(&mut self) -> Result<&'static str, Failure> {
        let spec = LockSpec { name: self.name.clone(), ..LockSpec::default() };
        let request = AcquireLockRequest {
            locks: vec![spec],
            session_id: self.lease,
            owner_id: "bench".to_owned(),
            ..AcquireLockRequest::default()
        };
        let answer: AcquireLockResponse = decode(self.take.call(&request).await?)?;
        let (Acquired::Granted, [grant]) = (answer.outcome(), &answer.grants[..]) else {
            return Err(Failure::wrong(format!("a lock without a grant: {answer:?}")));
        };
        self.enter()?;
        self.taken.store(false, Ordering::SeqCst);
        let request =
            ReleaseLockRequest { name: self.name.clone(), token: grant.token, ..Default::default() };
        let answer: ReleaseLockResponse = decode(self.give.call(&request).await?)?;
        match answer.outcome() {
            release_lock_response::Outcome::Released => Ok("hold"),
            other => Err(Failure::wrong(format!("a grant ended before its release: {other:?}"))),
        }
    }

    async fn hold_by_key(&mut self) -> Result<&'static str, Failure> {
        let request = LockRequest { name: self.name.clone().into(), lease: self.lease };
        let LockResponse { key, .. } = decode(self.take.call(&request).await?)?;
        self.enter()?;
        self.taken.store(false, Ordering::SeqCst);
        self.give.call(&UnlockRequest { key }).await?;
        Ok("hold")
    }

    fn enter(&self) -> Result<(), Failure> {
        if self.taken.swap(true, Ordering::SeqCst) {
            return Err(Failure::wrong(format!("two hold {} at once", self.name)));
        }
        Ok(())
    }
}
