//! A network for one cluster, made of the kernel's own: a namespace for each member, joined by a bridge at which the clients
//! sit. Packets between members can be dropped, lost by chance or slowed, in one direction or both; clients always get through.
//! Everything is named after this process, goes with it, and what a killed run left behind is removed by the next.
//! It knows no cluster.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

static NETWORKS: AtomicU32 = AtomicU32::new(0);

/// What is to happen to packets on their way from one member to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// None arrives.
    Cut,
    /// So many of a hundred do not.
    Lossy(u8),
}

pub struct Network {
    /// The beginning of all names here.
    name: String,
    block: [u8; 3],
    members: usize,
    /// By sender and receiver; pairs that are not here are as they should be.
    ways: BTreeMap<(usize, usize), Way>,
    /// Whether the kernel can delay packets by a set time; else slowness is had by a narrow link.
    pub delays: bool,
}

impl Network {
    /// # Errors
    /// Says why this machine cannot.
    pub fn new(members: usize) -> Result<Network, String> {
        for tool in ["ip", "nft", "tc"] {
            let known = Command::new(tool).arg("-V").stdout(Stdio::null()).stderr(Stdio::null()).status();
            known.map_err(|error| format!("{tool}: {error}; run server/tests/faults/setup.sh"))?;
        }
        clear_leftovers();
        let id = std::process::id();
        let number = NETWORKS.fetch_add(1, Ordering::Relaxed);
        let block = [10, 64 + (id % 128) as u8, number as u8];
        let mut network = Network {
            name: format!("tf{id}x{number}"),
            block,
            members,
            ways: BTreeMap::new(),
            delays: false,
        };
        network.build()?;
        network.delays = network.try_netem();
        Ok(network)
    }

    fn build(&self) -> Result<(), String> {
        let bridge = self.bridge();
        let [a, b, c] = self.block;
        run("ip", &["link", "add", &bridge, "type", "bridge"])?;
        run("ip", &["address", "add", &format!("{a}.{b}.{c}.254/24"), "dev", &bridge])?;
        run("ip", &["link", "set", &bridge, "up"])?;
        for member in 0..self.members {
            let space = self.space(member);
            let outer = format!("{}o{member}", self.name);
            let address = format!("{}/24", self.address(member));
            run("ip", &["netns", "add", &space])?;
            run("ip", &["link", "add", &outer, "type", "veth", "peer", "name", "eth0", "netns", &space])?;
            run("ip", &["link", "set", &outer, "master", &bridge, "up"])?;
            run("ip", &["-n", &space, "link", "set", "lo", "up"])?;
            run("ip", &["-n", &space, "address", "add", &address, "dev", "eth0"])?;
            run("ip", &["-n", &space, "link", "set", "eth0", "up"])?;
            self.rule(member)?;
        }
        Ok(())
    }

    fn try_netem(&self) -> bool {
        let space = self.space(0);
        let made = run("tc", &["-n", &space, "qdisc", "add", "dev", "eth0", "root", "netem", "delay", "1ms"]);
        let _ = run("tc", &["-n", &space, "qdisc", "del", "dev", "eth0", "root"]);
        made.is_ok()
    }

    fn bridge(&self) -> String {
        format!("{}b", self.name)
    }

    pub fn space(&self, member: usize) -> String {
        format!("{}n{member}", self.name)
    }

    pub fn address(&self, member: usize) -> Ipv4Addr {
        let [a, b, c] = self.block;
        Ipv4Addr::new(a, b, c, member as u8 + 1)
    }

    /// What becomes of packets from `from` to `to` from now on.
    pub fn set(&mut self, from: usize, to: usize, way: Way) {
        self.ways.insert((from, to), way);
        self.rule(to).expect("the rules were taken before");
    }

    /// Both directions.
    pub fn cut(&mut self, one: usize, other: usize) {
        self.set(one, other, Way::Cut);
        self.set(other, one, Way::Cut);
    }

    /// Makes all that a member sends slow: by a delay of tens of milliseconds where the kernel knows how, else by a narrow link
    /// with a long queue.
    pub fn slow(&self, member: usize) {
        let space = self.space(member);
        let delay = ["netem", "delay", "60ms", "30ms"];
        let narrow = ["tbf", "rate", "1mbit", "burst", "4kb", "latency", "400ms"];
        let how: &[&str] = if self.delays { &delay } else { &narrow };
        let arguments = [&["-n", &space, "qdisc", "replace", "dev", "eth0", "root"], how].concat();
        run("tc", &arguments).expect("the kernel took it before, or always has it");
    }

    /// As it should be, everywhere.
    pub fn heal(&mut self) {
        let touched: std::collections::BTreeSet<usize> = self.ways.keys().map(|(_, to)| *to).collect();
        self.ways.clear();
        for member in touched {
            self.rule(member).expect("the rules were taken before");
        }
        for member in 0..self.members {
            // An error says that there was nothing to remove.
            let _ = run("tc", &["-n", &self.space(member), "qdisc", "del", "dev", "eth0", "root"]);
        }
    }

    /// Gives a member's namespace the rules about what arrives there.
    fn rule(&self, to: usize) -> Result<(), String> {
        let mut rules = String::from(
            "table inet faults\ndelete table inet faults\ntable inet faults {\n chain arriving {\n  \
             type filter hook input priority 0;\n",
        );
        for ((from, _), way) in self.ways.iter().filter(|((_, receiver), _)| *receiver == to) {
            let address = self.address(*from);
            let chance = match way {
                Way::Cut => String::new(),
                Way::Lossy(percent) => format!("numgen random mod 100 < {percent} "),
            };
            writeln!(rules, "  ip saddr {address} {chance}drop").expect("memory takes everything");
        }
        rules.push_str(" }\n}\n");
        let space = self.space(to);
        let mut child = Command::new("ip")
            .args(["netns", "exec", &space, "nft", "-f", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| format!("ip netns exec: {error}"))?;
        {
            use std::io::Write;
            let mut stdin = child.stdin.take().expect("piped above");
            stdin.write_all(rules.as_bytes()).map_err(|error| format!("nft: {error}"))?;
        }
        let output = child.wait_with_output().map_err(|error| format!("nft: {error}"))?;
        if output.status.success() { Ok(()) } else { Err(format!("nft: {}", text(&output.stderr))) }
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for member in 0..self.members {
            remove_space(&self.space(member));
        }
        let _ = run("ip", &["link", "del", &self.bridge()]);
    }
}

/// Runs a program to its end; what it printed.
///
/// # Errors
/// What it said when it failed.
pub fn run(program: &str, arguments: &[&str]) -> Result<String, String> {
    let output = Command::new(program).args(arguments).stdin(Stdio::null()).output();
    let output = output.map_err(|error| format!("{program}: {error}"))?;
    if output.status.success() {
        Ok(text(&output.stdout))
    } else {
        Err(format!("{program} {}: {}", arguments.join(" "), text(&output.stderr)))
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).trim().to_owned()
}

/// Removes the namespaces and bridges of runs of this test whose process is gone.
fn clear_leftovers() {
    let dead = |name: &str| {
        let id = name.strip_prefix("tf").and_then(|rest| rest.split('x').next());
        let id = id.filter(|id| !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_digit()));
        id.is_some_and(|id| !Path::new("/proc").join(id).exists())
    };
    let spaces = run("ip", &["netns", "list"]).unwrap_or_default();
    for space in spaces.lines().filter_map(|line| line.split_whitespace().next()).filter(|name| dead(name)) {
        remove_space(space);
    }
    let bridges = run("ip", &["-o", "link", "show", "type", "bridge"]).unwrap_or_default();
    for bridge in bridges.lines().filter_map(|line| line.split(": ").nth(1)).filter(|name| dead(name)) {
        let _ = run("ip", &["link", "del", bridge]);
    }
}

/// With whatever still runs in it.
fn remove_space(space: &str) {
    for id in run("ip", &["netns", "pids", space]).unwrap_or_default().split_whitespace() {
        let _ = run("kill", &["-KILL", id]);
    }
    let _ = run("ip", &["netns", "del", space]);
}
