//! Which instances somebody wants to hear of.

use tenure_proto::tenure::v1::{Instance, InstanceSelector};

/// Whether the instance is all that the selector says. A selector that says nothing selects every instance.
pub fn selects(selector: &InstanceSelector, instance: &Instance) -> bool {
    let Some(registration) = &instance.registration else { return false };
    let any_of = |wanted: &[String], value: &String| wanted.is_empty() || wanted.contains(value);
    let healths = &selector.healths;
    (instance.routable || !selector.routable)
        && (healths.is_empty() || healths.contains(&instance.health))
        && any_of(&selector.zones, &registration.zone)
        && any_of(&selector.versions, &registration.version)
        && selector.labels.iter().all(|(name, value)| registration.labels.get(name) == Some(value))
}
