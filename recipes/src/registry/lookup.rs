//! Reading: whole services at one revision, what a consumer selects of them, and the list of services.

use tenure_proto::etcdserverpb::{RangeRequest, RangeResponse};
use tenure_proto::mvccpb::KeyValue;
use tenure_proto::tenure::v1::service_range::Which;
use tenure_proto::tenure::v1::{
    Health, Instance, InstancePlace, ListServicesRequest, ListServicesResponse, LookupRequest,
    LookupResponse, Service, ServiceRange,
};

use super::keys::Range;
use super::mirror::Mirror;
use super::policy;
use super::request;
use super::selector::selects;
use super::transition::Freshness;
use super::{Again, Registry, at};
use crate::primitives::{Failure, Primitives};
use crate::refusal::Error;

/// Pairs that one range gives at the most.
const PAGE: i64 = 10_000;
const INSTANCES_MAX: u32 = 10_000;
const SERVICES: u32 = 100;

impl<P: Primitives> Registry<P> {
    /// All instances that the selector selects, at one revision, in order and in portions.
    pub async fn lookup(&self, request: LookupRequest) -> Result<LookupResponse, Error> {
        request::lookup(&request)?;
        let freshness = if request.serializable { Freshness::AtHand } else { Freshness::Newest };
        let range = self.range_of(request.services.as_ref());
        let after = request.after.unwrap_or_default();
        let (mirror, revision) = self.load(&range, after.revision, freshness).await?;
        let limit = if request.limit == 0 { INSTANCES_MAX } else { request.limit } as usize;
        let selector = request.selector.unwrap_or_default();
        let behind = (after.service.as_str(), after.id.as_str());
        let mut selected = mirror
            .instances()
            .filter(|instance| place(instance) > behind && selects(&selector, instance))
            .take(limit + 1)
            .collect::<Vec<Instance>>();
        let more = selected.len() > limit;
        selected.truncate(limit);
        let next = selected.last().filter(|_| more).map(|last| {
            let (service, id) = place(last);
            InstancePlace { service: service.to_owned(), id: id.to_owned(), revision }
        });
        Ok(LookupResponse { header: at(revision), instances: selected, next })
    }

    /// Services in order of their names, each with how it stands.
    pub async fn list_services(&self, request: ListServicesRequest) -> Result<ListServicesResponse, Error> {
        request::list_services(&request)?;
        let limit = if request.limit == 0 { SERVICES } else { request.limit };
        let (mut from, to) = self.keys.policies(&request.prefix);
        if !request.after.is_empty() {
            from = from.max(self.keys.policy(&request.after));
            from.push(0);
        }
        let range = RangeRequest {
            key: from.into(),
            range_end: to.into(),
            limit: i64::from(limit),
            ..RangeRequest::default()
        };
        let response = self.primitives.range(range).await?;
        let revision = response.header.map_or(0, |header| header.revision);
        let mut services = Vec::with_capacity(response.kvs.len());
        for kv in &response.kvs {
            let Some(name) = self.keys.policy_of(&kv.key) else { continue };
            let (mirror, _) = self.load(&self.keys.service(&name), revision, Freshness::Newest).await?;
            services.push(standing(name, kv, &mirror));
        }
        Ok(ListServicesResponse { header: at(revision), services, more: response.more })
    }

    pub(super) fn range_of(&self, services: Option<&ServiceRange>) -> Range {
        match services.and_then(|services| services.which.as_ref()) {
            Some(Which::Service(service)) => self.keys.service(service),
            Some(Which::Prefix(prefix)) => self.keys.services(prefix),
            None => self.keys.services(""),
        }
    }

    /// Everything in the range at one revision: the newest, or that which is asked for.
    pub(super) async fn load(
        &self,
        range: &Range,
        revision: i64,
        freshness: Freshness,
    ) -> Result<(Mirror, i64), Failure> {
        let mut mirror = Mirror::new(self.keys.clone());
        let mut again = Again::default();
        loop {
            let read = self.each(range, revision, freshness, false, |kv| mirror.load(kv)).await;
            match read {
                Ok(revision) => return Ok((mirror, revision)),
                // What was newest when this began was compacted since.
                Err(failure @ Failure::Compacted { .. }) if revision == 0 => again.after(failure)?,
                Err(failure) => return Err(failure),
            }
            mirror = Mirror::new(self.keys.clone());
        }
    }

    /// Gives every pair of the range at one revision, in portions; says which revision.
    pub(super) async fn each(
        &self,
        (from, to): &Range,
        revision: i64,
        freshness: Freshness,
        keys_only: bool,
        mut take: impl FnMut(KeyValue),
    ) -> Result<i64, Failure> {
        let (mut from, mut revision) = (from.clone(), revision);
        let mut serializable = freshness == Freshness::AtHand;
        loop {
            let range = RangeRequest {
                key: from.into(),
                range_end: to.clone().into(),
                limit: PAGE,
                revision,
                keys_only,
                serializable,
                ..RangeRequest::default()
            };
            let RangeResponse { header, kvs, more, .. } = self.primitives.range(range).await?;
            if revision == 0 {
                revision = header.map_or(0, |header| header.revision);
            }
            let last = kvs.last().map(|kv| kv.key.clone());
            kvs.into_iter().for_each(&mut take);
            let Some(last) = last.filter(|_| more) else { return Ok(revision) };
            from = [&last[..], &[0]].concat();
            // Who had the first portion has that revision, and it does not change any more.
            serializable = true;
        }
    }
}

/// Service and id.
fn place(instance: &Instance) -> (&str, &str) {
    instance.registration.as_ref().map_or(("", ""), |of| (of.service.as_str(), of.id.as_str()))
}

fn standing(name: String, policy_kv: &KeyValue, mirror: &Mirror) -> Service {
    let mut service = Service {
        policy: Some(policy::decoded(Some(policy_kv))),
        policy_revision: policy_kv.mod_revision,
        protection: mirror.protection(&name).cloned(),
        name,
        ..Service::default()
    };
    for instance in mirror.instances() {
        service.instances += 1;
        service.routable += u32::from(instance.routable);
        service.lost += u32::from(instance.health() == Health::Lost);
        service.stale += u32::from(instance.stale);
    }
    service
}
