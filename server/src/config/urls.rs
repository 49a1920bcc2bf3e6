//! The URLs that members listen on and tell each other, held as etcd prints them: member ids are hashes of that text,
//! so nothing is tidied (a general URL type would drop `:80` and lower the host's letters). No name is looked up here.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

const NO_TLS: &str = "TLS is not available in this version yet, use http://";
const NO_UNIX_SOCKETS: &str = "unix sockets are not served, use http:// and an address";

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scheme {
    Http,
    Https,
}

/// Where a member can be reached.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Url {
    text: String,
    scheme: Scheme,
    host: String,
    port: u16,
}

impl Url {
    /// A URL that is only told to others, such as one that clients use through a proxy that speaks TLS.
    pub fn advertised(text: &str) -> Result<Url, String> {
        let text = text.trim();
        let (scheme, address) = split_scheme(text)?;
        if let Some(at) = address.find(['/', '?', '#', '@']) {
            let part = if address[at..].starts_with('/') { "a path" } else { "a user, query or fragment" };
            return Err(format!("URL must not contain {part}: {text}"));
        }
        let (host, port) = split_host_port(address)
            .ok_or(format!("URL address does not have the form \"host:port\": {text}"))?;
        if host.is_empty() {
            return Err(format!("unexpected empty host ({text})"));
        }
        Ok(Url { text: text.to_owned(), scheme, host: host.to_owned(), port })
    }

    /// A URL that this member itself calls.
    pub fn peer(text: &str) -> Result<Url, String> {
        let url = Url::advertised(text)?;
        match url.scheme {
            Scheme::Http => Ok(url),
            Scheme::Https => Err(format!("{NO_TLS}: {url}")),
        }
    }

    pub fn as_str(&self) -> &str {
        &self.text
    }

    pub fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// A name or an address; an IPv6 address stands here without its brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// Whether it names every address of the machine, which nobody else can call.
    pub fn is_unspecified(&self) -> bool {
        self.host.parse().is_ok_and(|address: IpAddr| address.is_unspecified())
    }

    /// Whether both surely name the same door, without asking a name server.
    pub fn same_address(&self, other: &Url) -> bool {
        let host = |url: &Url| {
            if url.host == "localhost" { "127.0.0.1".to_owned() } else { url.host.to_lowercase() }
        };
        self.scheme == other.scheme && self.port == other.port && host(self) == host(other)
    }
}

impl AsRef<str> for Url {
    fn as_ref(&self) -> &str {
        &self.text
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Where this member listens: an address of this machine, never a name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ListenUrl {
    url: Url,
    address: SocketAddr,
}

impl ListenUrl {
    pub fn parse(text: &str) -> Result<ListenUrl, String> {
        let url = Url::peer(text).map_err(|why| match why.starts_with("unexpected empty host") {
            true => format!("expected IP in URL for binding ({})", text.trim()),
            false => why,
        })?;
        // As etcd: the one name that may be bound is localhost, and it means IPv4.
        let ip = match url.host.as_str() {
            "localhost" => Ok(IpAddr::V4(Ipv4Addr::LOCALHOST)),
            host => host.parse::<IpAddr>(),
        };
        match ip {
            Ok(ip) => Ok(ListenUrl { address: SocketAddr::new(ip, url.port), url }),
            Err(_) => Err(format!("expected IP in URL for binding ({url})")),
        }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn url(&self) -> &Url {
        &self.url
    }
}

impl fmt::Display for ListenUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.url.fmt(f)
    }
}

/// One flag's comma-separated URLs, sorted and without repetition as etcd keeps them. A type of its own because clap
/// reads a `Vec` as a flag that may be repeated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UrlList<U>(pub Vec<U>);

pub fn listen_list(text: &str) -> Result<UrlList<ListenUrl>, String> {
    list(text, ListenUrl::parse)
}

pub fn peer_list(text: &str) -> Result<UrlList<Url>, String> {
    list(text, Url::peer)
}

pub fn advertised_list(text: &str) -> Result<UrlList<Url>, String> {
    list(text, Url::advertised)
}

fn list<U: Ord>(text: &str, parse: impl Fn(&str) -> Result<U, String>) -> Result<UrlList<U>, String> {
    const EXAMPLE: &str = "write for example http://10.0.0.1:2379";
    if text.trim().is_empty() {
        return Err(format!("it names no URL; {EXAMPLE}"));
    }
    let urls = text.split(',').map(parse).collect::<Result<Vec<_>, _>>();
    let mut urls = urls.map_err(|why| format!("{why}; {EXAMPLE}"))?;
    urls.sort();
    urls.dedup();
    Ok(UrlList(urls))
}

fn split_scheme(text: &str) -> Result<(Scheme, &str), String> {
    let unknown = || format!("URL scheme must be http or https: {text}");
    let (scheme, address) = text.split_once("://").ok_or_else(unknown)?;
    match scheme.to_ascii_lowercase().as_str() {
        "http" => Ok((Scheme::Http, address)),
        "https" => Ok((Scheme::Https, address)),
        "unix" | "unixs" => Err(format!("{NO_UNIX_SOCKETS}: {text}")),
        _ => Err(unknown()),
    }
}

fn split_host_port(address: &str) -> Option<(&str, u16)> {
    let (host, port) = address.rsplit_once(':')?;
    let digits = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
    let port = digits.then(|| port.parse().ok())??;
    let host = match host.strip_prefix('[') {
        Some(rest) => rest.strip_suffix(']')?,
        None if host.contains(':') => return None,
        None => host,
    };
    let clean = !host.contains(|c: char| c.is_whitespace() || c.is_control() || c == '[' || c == ']');
    clean.then_some((host, port))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_url_keeps_its_text() {
        for text in
            ["http://127.0.0.1:2379", "http://EXAMPLE.com:80", "https://[::1]:443", "http://node-1.x:0"]
        {
            assert_eq!(Url::advertised(text).unwrap().to_string(), text);
        }
        let url = Url::advertised(" http://[fe80::1]:2380 ").unwrap();
        assert_eq!((url.as_str(), url.host(), url.port()), ("http://[fe80::1]:2380", "fe80::1", 2380));
        assert_eq!(url.scheme(), Scheme::Http);
    }

    #[test]
    fn refusals_have_etcds_words() {
        let cases = [
            ("localhost:2379", "URL scheme must be http or https: localhost:2379"),
            ("ftp://localhost:2379", "URL scheme must be http or https: ftp://localhost:2379"),
            ("http://localhost", "URL address does not have the form \"host:port\": http://localhost"),
            ("http://localhost:x", "URL address does not have the form \"host:port\": http://localhost:x"),
            (
                "http://localhost:70000",
                "URL address does not have the form \"host:port\": http://localhost:70000",
            ),
            ("http://::1:2379", "URL address does not have the form \"host:port\": http://::1:2379"),
            ("http://localhost:2379/", "URL must not contain a path: http://localhost:2379/"),
            ("http://u@localhost:1", "URL must not contain a user, query or fragment: http://u@localhost:1"),
            ("http://:2379", "unexpected empty host (http://:2379)"),
            ("unix://s:1", "unix sockets are not served, use http:// and an address: unix://s:1"),
        ];
        for (text, expected) in cases {
            assert_eq!(Url::advertised(text).unwrap_err(), expected);
        }
    }

    #[test]
    fn one_listens_on_addresses_only() {
        let address = |text| ListenUrl::parse(text).map(|url| url.address().to_string());
        assert_eq!(address("http://localhost:2379").unwrap(), "127.0.0.1:2379");
        assert_eq!(address("http://0.0.0.0:1").unwrap(), "0.0.0.0:1");
        assert_eq!(address("http://[::1]:1").unwrap(), "[::1]:1");
        let refused = "expected IP in URL for binding (http://example.com:1)";
        assert_eq!(address("http://example.com:1").unwrap_err(), refused);
        assert_eq!(address("http://:1").unwrap_err(), "expected IP in URL for binding (http://:1)");
        assert!(address("https://127.0.0.1:1").unwrap_err().contains("TLS is not available"));
    }

    #[test]
    fn lists_are_sorted_and_without_repetition() {
        let UrlList(urls) = peer_list("http://b:1, http://a:1,http://b:1").unwrap();
        assert_eq!(urls.iter().map(Url::as_str).collect::<Vec<_>>(), ["http://a:1", "http://b:1"]);
        assert!(peer_list("").unwrap_err().contains("names no URL"));
        assert!(peer_list("http://a:1,").is_err());
    }

    #[test]
    fn the_same_door_may_have_two_spellings() {
        let same = |a: &str, b: &str| Url::peer(a).unwrap().same_address(&Url::peer(b).unwrap());
        assert!(same("http://localhost:1", "http://127.0.0.1:1"));
        assert!(same("http://Node:1", "http://node:1"));
        assert!(!same("http://a:1", "http://a:2"));
        assert!(Url::peer("http://0.0.0.0:1").unwrap().is_unspecified());
        assert!(!Url::peer("http://localhost:1").unwrap().is_unspecified());
    }
}
