//! What readers of other systems see of an instance: one ordinary key for each projection, in their form. Pure: a record in, keys out.
//!
//! A key depends on the projection and the id alone, so that an instance that moves overwrites it; a record keeps the projections by which
//! its keys were written, so that whoever changes it knows which keys to change. They have no lease: the record has none either, and an
//! instance that is not heard of is sent traffic as before until it is taken for lost (loss.rs). On its lease, the keys of a whole
//! service would go in the very moment in which protection is to keep it; and CoreDNS asks for the lease of each key it reads.

use std::collections::BTreeMap;

use tenure_proto::tenure::v1::projection::{Into, Naming, SkyDns};
use tenure_proto::tenure::v1::{Endpoint, InstanceRecord, Projection};

use super::instance;
use super::transition::Transition;
use crate::check;
use crate::key::{Root, escape};
use crate::refusal::{Reason, Refusal};

pub const PROJECTIONS_MAX: usize = 4;

const TARGET_BYTES_MAX: usize = 256;
/// With an instance's label and the separators it stays within the 253 bytes that a name in DNS may have.
const DOMAIN_BYTES_MAX: usize = 180;
const LABEL_BYTES_MAX: usize = 63;
/// What a label keeps of an id before the separator and the 16 digits of the sum.
const KEPT_BYTES_MAX: usize = LABEL_BYTES_MAX - 17;
const PATH: &str = "/skydns";
const TTL_S: i64 = 30;
/// In a name that is asked for, CoreDNS takes it for any label.
const WILDCARD: &str = "any";

/// Keys and their values: one for each projection, none of an instance that is not to be sent traffic.
pub fn shown(record: &InstanceRecord) -> BTreeMap<Vec<u8>, String> {
    let Some(registration) = record.registration.as_ref().filter(|_| instance::is_routable(record)) else {
        return BTreeMap::new();
    };
    let pair = |projection: &Projection| {
        let mut endpoints = registration.endpoints.iter();
        let wanted =
            |endpoint: &&Endpoint| projection.endpoint.is_empty() || endpoint.name == projection.endpoint;
        let endpoint = endpoints.find(wanted).filter(|endpoint| is_host(&endpoint.host))?;
        let mut key = prefix(projection)?;
        let value = match projection.into.as_ref()? {
            Into::Naming(_) => {
                escape(&registration.id, &mut key);
                naming(endpoint)
            }
            Into::Skydns(into) => {
                key.extend(label(&registration.id).into_bytes());
                skydns(endpoint, instance::weight(record), into)
            }
        };
        Some((key, value))
    };
    record.projections.iter().filter_map(pair).collect()
}

impl Transition {
    /// Changes the keys of an instance whose record changes so; None: there is no record.
    pub fn project(self, before: Option<&InstanceRecord>, after: Option<&InstanceRecord>) -> Transition {
        let (before, after) = (before.map(shown).unwrap_or_default(), after.map(shown).unwrap_or_default());
        let gone = before.keys().filter(|key| !after.contains_key(*key)).map(|key| (key.clone(), None));
        let came = after.iter().filter(|(key, value)| before.get(*key) != Some(*value));
        let came = came.map(|(key, value)| (key.clone(), Some(value.clone())));
        self.show(gone.chain(came).collect::<Vec<_>>())
    }
}

/// Below which the keys lie, with the separator at its end; None: of a kind that is not known here.
pub fn prefix(projection: &Projection) -> Option<Vec<u8>> {
    let prefix = match projection.into.as_ref()? {
        Into::Naming(Naming { target }) => format!("{target}/"),
        Into::Skydns(SkyDns { domain, path, .. }) => {
            let path = if path.is_empty() { PATH } else { path };
            let labels = domain.rsplit('.').collect::<Vec<_>>().join("/");
            format!("{path}/{labels}/")
        }
    };
    Some(prefix.into_bytes())
}

/// Whether one has keys within the other's.
pub fn overlap(one: &Projection, other: &Projection) -> bool {
    match (prefix(one), prefix(other)) {
        (Some(one), Some(other)) => one.starts_with(&other) || other.starts_with(&one),
        _ => false,
    }
}

pub fn well_formed(projections: &[Projection], root: &Root) -> Result<(), Refusal> {
    if projections.len() > PROJECTIONS_MAX {
        let count = projections.len();
        return Err(invalid(format!("{count} projections are too many: {PROJECTIONS_MAX} at the most")));
    }
    for (number, projection) in projections.iter().enumerate() {
        match &projection.into {
            Some(Into::Naming(into)) => well_formed_naming(into)?,
            Some(Into::Skydns(into)) => well_formed_skydns(into)?,
            None => return Err(invalid("a projection says not into what: name `naming` or `skydns`")),
        }
        if projection.endpoint.len() > TARGET_BYTES_MAX {
            return Err(invalid("the name of a projection's endpoint is longer than any endpoint's"));
        }
        let prefix = prefix(projection).unwrap_or_default();
        if prefix.starts_with(root.as_bytes()) || root.as_bytes().starts_with(&prefix) {
            let (prefix, root) = (String::from_utf8_lossy(&prefix), String::from_utf8_lossy(root.as_bytes()));
            return Err(invalid(format!(
                "a projection to {prefix:?} would write what is the registry's own ({root:?}); choose another place"
            )));
        }
        if projections[..number].iter().any(|other| overlap(projection, other)) {
            let prefix = String::from_utf8_lossy(&prefix);
            return Err(invalid(format!("two projections meet at {prefix:?}; give each a place of its own")));
        }
    }
    Ok(())
}

fn well_formed_naming(Naming { target }: &Naming) -> Result<(), Refusal> {
    let is_bounded = (1..=TARGET_BYTES_MAX).contains(&target.len());
    if is_bounded && !target.ends_with('/') && !target.bytes().any(|byte| byte.is_ascii_control()) {
        return Ok(());
    }
    Err(invalid(format!(
        "{target:?} is no target: 1 to {TARGET_BYTES_MAX} bytes as behind `etcd:///`, no `/` at the end"
    )))
}

fn well_formed_skydns(SkyDns { domain, path, ttl_s }: &SkyDns) -> Result<(), Refusal> {
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    let is_label = |label: &str| {
        (1..=LABEL_BYTES_MAX).contains(&label.len())
            && label.bytes().all(|byte| is_word(byte) && !byte.is_ascii_uppercase())
            && label != WILDCARD
    };
    if domain.len() > DOMAIN_BYTES_MAX || !domain.split('.').all(is_label) {
        return Err(invalid(format!(
            "{domain:?} is no domain: at most {DOMAIN_BYTES_MAX} bytes, labels of `a-z`, `0-9`, `-`, `_` with dots between"
        )));
    }
    let is_segment =
        |segment: &str| (1..=LABEL_BYTES_MAX).contains(&segment.len()) && segment.bytes().all(is_word);
    if !path.is_empty() && !path.strip_prefix('/').is_some_and(is_segment) {
        return Err(invalid(format!("{path:?} is no path: write one segment, as `/skydns`")));
    }
    if *ttl_s != 0 { check::ttl_s(*ttl_s) } else { Ok(()) }
}

/// What can stand in JSON as it is, and be found by a resolver.
fn is_host(host: &str) -> bool {
    !host.is_empty() && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".:-_".contains(&byte))
}

/// Without the metadata that there may be: grpc-go compares them with `==`, which panics for anything but a plain value.
fn naming(Endpoint { host, port, .. }: &Endpoint) -> String {
    let host = if host.contains(':') { format!("[{host}]") } else { host.clone() };
    format!(r#"{{"Op":0,"Addr":"{host}:{port}"}}"#)
}

/// CoreDNS takes a weight of 0 for none, which is 100.
fn skydns(Endpoint { host, port, .. }: &Endpoint, weight: u32, into: &SkyDns) -> String {
    let (weight, ttl_s) = (weight.max(1), if into.ttl_s > 0 { into.ttl_s } else { TTL_S });
    format!(r#"{{"host":"{host}","port":{port},"weight":{weight},"ttl":{ttl_s}}}"#)
}

/// The id if that is a label, and no one that was made here; else what of it can stand in one, and a sum over all of it.
fn label(id: &str) -> String {
    let may_stand = |letter: &char| letter.is_ascii_lowercase() || letter.is_ascii_digit() || *letter == '-';
    let is_label = (1..=LABEL_BYTES_MAX).contains(&id.len())
        && id.chars().all(|letter| may_stand(&letter))
        && !id.starts_with('-')
        && !id.ends_with('-');
    if is_label && id != WILDCARD && !ends_in_sum(id) {
        return id.to_owned();
    }
    let letters = id.chars().map(|letter| letter.to_ascii_lowercase());
    let kept: String =
        letters.map(|letter| if may_stand(&letter) { letter } else { '-' }).take(KEPT_BYTES_MAX).collect();
    match kept.trim_matches('-') {
        "" => format!("i-{:016x}", sum(id)),
        kept => format!("{kept}-{:016x}", sum(id)),
    }
}

fn ends_in_sum(label: &str) -> bool {
    let end = label.rsplit_once('-').map(|(_, end)| end);
    end.is_some_and(|end| end.len() == 16 && end.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

/// FNV-1a, 64 bits. Whoever makes two ids meet on purpose shares one key between two instances of a service, and harms nobody else.
fn sum(id: &str) -> u64 {
    id.bytes()
        .fold(0xcbf2_9ce4_8422_2325, |sum, byte| (sum ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3))
}

fn invalid(text: impl std::convert::Into<String>) -> Refusal {
    Refusal::new(Reason::Invalid, text)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use tenure_proto::tenure::v1::{Health, Registration};

    use super::*;

    fn into_naming(target: &str) -> Projection {
        Projection { into: Some(Into::Naming(Naming { target: target.to_owned() })), endpoint: String::new() }
    }

    fn into_skydns(domain: &str, path: &str) -> Projection {
        let (domain, path) = (domain.to_owned(), path.to_owned());
        Projection { into: Some(Into::Skydns(SkyDns { domain, path, ttl_s: 0 })), endpoint: String::new() }
    }

    fn shows(projection: Projection, id: &str, host: &str) -> Vec<(String, String)> {
        let endpoint = |name: &str, port| Endpoint {
            name: name.to_owned(),
            host: host.to_owned(),
            port,
            protocol: String::new(),
        };
        let registration = Registration {
            id: id.to_owned(),
            endpoints: vec![endpoint("http", 80), endpoint("grpc", 90)],
            ..Registration::default()
        };
        let record = InstanceRecord {
            registration: Some(registration),
            health: Health::Passing.into(),
            projections: vec![projection],
            ..InstanceRecord::default()
        };
        shown(&record).into_iter().map(|(key, value)| (String::from_utf8(key).unwrap(), value)).collect()
    }

    fn pair(key: &str, value: &str) -> Vec<(String, String)> {
        vec![(key.to_owned(), value.to_owned())]
    }

    #[test]
    fn each_reader_finds_its_form() {
        let found = shows(into_naming("services/web"), "10.0.0.1:80/a", "10.0.0.1");
        assert_eq!(found, pair("services/web/10.0.0.1:80%2Fa", r#"{"Op":0,"Addr":"10.0.0.1:80"}"#));
        let grpc = Projection { endpoint: "grpc".to_owned(), ..into_naming("web") };
        assert_eq!(shows(grpc, "a", "fd00::1"), pair("web/a", r#"{"Op":0,"Addr":"[fd00::1]:90"}"#));
        let found = shows(into_skydns("web.services.local", ""), "a-1", "10.0.0.1");
        let value = r#"{"host":"10.0.0.1","port":80,"weight":100,"ttl":30}"#;
        assert_eq!(found, pair("/skydns/local/services/web/a-1", value));
    }

    #[test]
    fn what_no_reader_could_use_is_not_shown() {
        let other = Projection { endpoint: "metrics".to_owned(), ..into_naming("web") };
        assert_eq!(shows(other, "a", "10.0.0.1"), []);
        for host in ["a\"b", "a b", "ä", "[::1]"] {
            assert_eq!(shows(into_naming("web"), "a", host), [], "{host}");
        }
    }

    #[test]
    fn every_id_becomes_a_label_and_no_two_become_the_same() {
        let long = "x".repeat(128);
        let taken = label("Web-1");
        let ids =
            ["web-1", "Web-1", "WEB-1", "web.1", "web/1", "-web-1", "any", "i", "ä", "ö", "-", &long, &taken];
        let labels: std::collections::BTreeSet<String> = ids.iter().map(|id| label(id)).collect();
        assert_eq!(labels.len(), ids.len(), "{labels:?}");
        assert!(labels.contains("web-1") && !labels.contains("any"));
        for label in &labels {
            assert!(label.len() <= LABEL_BYTES_MAX && !label.starts_with('-') && !label.ends_with('-'));
            assert!(label.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-'));
        }
    }

    #[test]
    fn none_reaches_into_the_registrys_keys_or_anothers() {
        let root = Root::server();
        let refused = |projections: &[Projection]| well_formed(projections, &root).is_err();
        for target in ["", "a/", "/_tenure", "/_tenure/registry/web/instance", "a\n", &"x".repeat(257)] {
            assert!(refused(&[into_naming(target)]), "{target:?}");
        }
        for domain in ["", ".", "a..b", "A.local", "a.any.local", "a b", &"a.".repeat(100)] {
            assert!(refused(&[into_skydns(domain, "")]), "{domain:?}");
        }
        for path in ["skydns", "/", "/a/b", "/_tenure", "/a b"] {
            assert!(refused(&[into_skydns("web.local", path)]), "{path:?}");
        }
        let (outer, inner) = (into_skydns("local", ""), into_skydns("web.local", ""));
        assert!(overlap(&outer, &inner) && refused(&[outer.clone(), inner.clone()]));
        assert!(overlap(&into_naming("/skydns/local"), &inner));
        assert!(!overlap(&into_naming("web"), &into_naming("web2")));
        let well = [
            into_naming("_tenure/web"),
            into_naming("services/web"),
            into_skydns("web.local", "/dns"),
            inner,
        ];
        assert!(!refused(&well));
        assert!(refused(&[&well[..], &[into_naming("fifth")]].concat()));
        assert!(refused(&[Projection::default()]));
    }
}
