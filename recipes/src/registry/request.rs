//! Whether a call is well-formed. Done before anything is asked of the store.

use tenure_proto::tenure::v1::service_range::Which;
use tenure_proto::tenure::v1::set_instance_request::Change;
use tenure_proto::tenure::v1::{
    DeregisterRequest, Drain, Endpoint, Health, Heartbeat, InstanceSelector, ListServicesRequest,
    LookupRequest, RegisterRequest, Registration, ServicePolicy, ServiceRange, SetInstanceRequest,
    SetServicePolicyRequest, WatchInstancesRequest,
};

use super::{HEARTBEATS_MAX, policy};
use crate::check;
use crate::refusal::{Reason, Refusal};

const TEXT_BYTES_MAX: usize = 256;
const ENDPOINTS_MAX: usize = 16;
const PORT_MAX: u32 = 65_535;
pub const WEIGHT_MAX: u32 = 65_535;
const LOOKUP_MAX: u32 = 10_000;
const SERVICES_MAX: u32 = 1_000;
const COALESCE_MS_MAX: u32 = 60_000;
/// Values of one kind that a selector may name.
const SELECTED_MAX: usize = 64;

type Checked = Result<(), Refusal>;

/// The registration that a well-formed request has.
pub fn register(request: &RegisterRequest) -> Result<&Registration, Refusal> {
    let Some(registration) = &request.registration else {
        return Err(invalid("the call registers nothing: `registration` is missing"));
    };
    names(&registration.service, &registration.id)?;
    incarnation(registration.incarnation, 1)?;
    if registration.sequence < 0 {
        return Err(invalid(format!("sequence {} is less than 0", registration.sequence)));
    }
    check::labels(&registration.labels)?;
    text("the version", &registration.version)?;
    text("the zone", &registration.zone)?;
    if registration.ttl_s != 0 {
        check::ttl_s(registration.ttl_s)?;
    }
    if let Some(weight) = registration.weight.filter(|weight| *weight > WEIGHT_MAX) {
        return Err(invalid(format!("a weight of {weight} cannot be had: choose 0 to {WEIGHT_MAX}")));
    }
    if registration.endpoints.len() > ENDPOINTS_MAX {
        let count = registration.endpoints.len();
        return Err(invalid(format!("{count} endpoints are too many: {ENDPOINTS_MAX} at the most")));
    }
    registration.endpoints.iter().try_for_each(endpoint)?;
    reported(request.health)?;
    check::note(&request.note)?;
    Ok(registration)
}

fn endpoint(endpoint: &Endpoint) -> Checked {
    for (what, value) in
        [("name", &endpoint.name), ("host", &endpoint.host), ("protocol", &endpoint.protocol)]
    {
        text(&format!("an endpoint's {what}"), value)?;
    }
    if endpoint.host.is_empty() {
        return Err(invalid("an endpoint names no host"));
    }
    if !(1..=PORT_MAX).contains(&endpoint.port) {
        return Err(invalid(format!("port {} of an endpoint is not 1 to {PORT_MAX}", endpoint.port)));
    }
    Ok(())
}

pub fn heartbeats(heartbeats: &[Heartbeat]) -> Checked {
    if heartbeats.len() > HEARTBEATS_MAX {
        let count = heartbeats.len();
        return Err(invalid(format!(
            "{count} heartbeats in one message are too many: {HEARTBEATS_MAX} at most"
        )));
    }
    for beat in heartbeats {
        names(&beat.service, &beat.id)?;
        incarnation(beat.incarnation, 1)?;
        reported(beat.health)?;
        check::note(&beat.note)?;
    }
    Ok(())
}

pub fn deregister(request: &DeregisterRequest) -> Checked {
    names(&request.service, &request.id)?;
    incarnation(request.incarnation, 0)
}

/// The change that a well-formed request asks for.
pub fn set_instance(request: &SetInstanceRequest) -> Result<&Change, Refusal> {
    names(&request.service, &request.id)?;
    let Some(change) = &request.change else {
        return Err(invalid("the call sets nothing: name drain, undrain, maintenance or weight"));
    };
    match change {
        Change::Drain(drain) => well_formed_drain(drain)?,
        Change::Undrain(false) => return Err(invalid("undrain is false: to drain, send `drain`")),
        Change::Undrain(true) | Change::Maintenance(_) | Change::Weight(_) => {}
    }
    Ok(change)
}

fn well_formed_drain(drain: &Drain) -> Checked {
    if drain.deadline_s != 0 {
        check::ttl_s(drain.deadline_s)?;
    }
    if tenure_proto::tenure::v1::drain::End::try_from(drain.end).is_err() {
        return Err(invalid(format!("a drain cannot end with {}", drain.end)));
    }
    check::note(&drain.reason)
}

pub fn lookup(request: &LookupRequest) -> Checked {
    services(request.services.as_ref())?;
    selector(request.selector.as_ref())?;
    if request.limit > LOOKUP_MAX {
        return Err(invalid(format!("a limit of {} is too much: 1 to {LOOKUP_MAX}", request.limit)));
    }
    if request.after.as_ref().is_some_and(|after| after.revision <= 0) {
        return Err(invalid("`after` names no revision: send `next` of the reply before as it is"));
    }
    Ok(())
}

pub fn watch(request: &WatchInstancesRequest) -> Checked {
    services(request.services.as_ref())?;
    selector(request.selector.as_ref())?;
    if request.after_revision < 0 {
        return Err(invalid(format!("{} is no revision", request.after_revision)));
    }
    if request.coalesce_ms > COALESCE_MS_MAX {
        let ms = request.coalesce_ms;
        return Err(invalid(format!("changes cannot be kept {ms} ms: choose 0 to {COALESCE_MS_MAX}")));
    }
    Ok(())
}

pub fn list_services(request: &ListServicesRequest) -> Checked {
    text("the prefix", &request.prefix)?;
    text("`after`", &request.after)?;
    if request.limit > SERVICES_MAX {
        return Err(invalid(format!("a limit of {} is too much: 1 to {SERVICES_MAX}", request.limit)));
    }
    Ok(())
}

/// The policy that a well-formed request sets.
pub fn set_policy(request: &SetServicePolicyRequest) -> Result<&ServicePolicy, Refusal> {
    service(&request.service)?;
    match &request.policy {
        Some(policy) => policy::well_formed(policy).map(|()| policy),
        None => Err(invalid("the call sets no policy; an empty one stands for all defaults")),
    }
}

pub fn service(service: &str) -> Checked {
    check::name("service", service)
}

fn names(service: &str, id: &str) -> Checked {
    check::name("service", service)?;
    check::id("instance", id)
}

fn services(services: Option<&ServiceRange>) -> Checked {
    match services.and_then(|services| services.which.as_ref()) {
        Some(Which::Service(service)) => check::name("service", service),
        Some(Which::Prefix(prefix)) => text("the prefix", prefix),
        None => Ok(()),
    }
}

fn selector(selector: Option<&InstanceSelector>) -> Checked {
    let Some(selector) = selector else { return Ok(()) };
    check::labels(&selector.labels)?;
    for (what, count) in [
        ("zones", selector.zones.len()),
        ("versions", selector.versions.len()),
        ("healths", selector.healths.len()),
    ] {
        if count > SELECTED_MAX {
            return Err(invalid(format!(
                "{count} {what} to select are too many: {SELECTED_MAX} at the most"
            )));
        }
    }
    Ok(())
}

fn incarnation(incarnation: i64, least: i64) -> Checked {
    if incarnation >= least {
        return Ok(());
    }
    Err(invalid(format!(
        "incarnation {incarnation} is less than {least}: take the time of the process's start"
    )))
}

/// A process says how it is; that it is lost, only the registry says.
fn reported(health: i32) -> Checked {
    match Health::try_from(health) {
        Ok(Health::Lost) => Err(invalid("an instance cannot report itself LOST; to leave, deregister")),
        Ok(_) => Ok(()),
        Err(_) => Err(invalid(format!("{health} is no health"))),
    }
}

fn text(what: &str, text: &str) -> Checked {
    if text.len() <= TEXT_BYTES_MAX {
        return Ok(());
    }
    Err(invalid(format!("{what} has {} bytes, and at most {TEXT_BYTES_MAX} are allowed", text.len())))
}

fn invalid(text: impl Into<String>) -> Refusal {
    Refusal::new(Reason::Invalid, text)
}
