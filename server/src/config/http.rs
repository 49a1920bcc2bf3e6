//! Who may ask by plain HTTP: of which origins web pages are let, and under which host names this member answers. Both guard the
//! operator's browser, not the server; gRPC passes by them, as in etcd.

use super::urls::Url;

/// How the client port answers plain HTTP.
#[derive(Debug, Clone)]
pub struct Http {
    /// Whether RPCs are answered as JSON.
    pub gateway: bool,
    pub origins: Origins,
    pub hosts: Hosts,
}

/// Origins whose web pages may read answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origins {
    All,
    /// `scheme://host[:port]` each, in lower case.
    These(Vec<String>),
}

/// Host names that requests may be addressed to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Hosts {
    Any,
    /// Without ports, in lower case; an IPv6 address without its brackets.
    These(Vec<String>),
}

impl Hosts {
    /// `authority`: what the request names, with or without a port.
    pub fn allow(&self, authority: &str) -> bool {
        match self {
            Hosts::Any => true,
            Hosts::These(names) => names.contains(&without_port(authority).to_ascii_lowercase()),
        }
    }
}

fn without_port(authority: &str) -> &str {
    match authority.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, _)) => address,
        None => authority.rsplit_once(':').map_or(authority, |(host, _)| host),
    }
}

pub(super) fn origins(text: &str) -> Result<Origins, String> {
    let mut origins = Vec::new();
    for origin in items(text) {
        if origin == "*" {
            return Ok(Origins::All);
        }
        // A browser leaves out the port that a scheme has anyway.
        if let Err(why) = Url::advertised(origin)
            && Url::advertised(&format!("{origin}:80")).is_err()
        {
            return Err(format!("{why}; write for example http://example.com"));
        }
        origins.push(origin.to_ascii_lowercase());
    }
    Ok(if origins.is_empty() { Origins::All } else { Origins::These(origins) })
}

pub(super) fn hosts(text: &str) -> Result<Hosts, String> {
    let mut hosts = Vec::new();
    for host in items(text) {
        match host {
            "*" => return Ok(Hosts::Any),
            _ if host.contains(['/', ' ', '@']) => {
                return Err(format!(
                    "{host:?} is no host name; write names or addresses, such as db.example.com"
                ));
            }
            _ => hosts.push(host.trim_matches(['[', ']']).to_ascii_lowercase()),
        }
    }
    Ok(if hosts.is_empty() { Hosts::Any } else { Hosts::These(hosts) })
}

fn items(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(str::trim).filter(|item| !item.is_empty())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn origins_are_schemes_and_hosts() {
        for all in ["", "*", "http://a:1,*"] {
            assert_eq!(origins(all).unwrap(), Origins::All, "{all}");
        }
        let some = origins("https://App.example.com, http://localhost:3000").unwrap();
        let expected = ["https://app.example.com", "http://localhost:3000"].map(str::to_owned).to_vec();
        assert_eq!(some, Origins::These(expected));
        for wrong in ["example.com", "ftp://a", "http://a/path", "http://"] {
            assert!(origins(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn hosts_are_compared_without_ports() {
        assert_eq!(hosts("").unwrap(), Hosts::Any);
        assert_eq!(hosts("a,*").unwrap(), Hosts::Any);
        let some = hosts("Db.example.com,127.0.0.1,[::1]").unwrap();
        for allowed in ["db.example.com", "DB.example.com:2379", "127.0.0.1:1", "[::1]:2379", "[::1]"] {
            assert!(some.allow(allowed), "{allowed}");
        }
        for refused in ["", "example.com", "evil.db.example.com:2379", "[::2]:1", "127.0.0.2"] {
            assert!(!some.allow(refused), "{refused}");
        }
        assert!(hosts("http://a").is_err());
    }
}
