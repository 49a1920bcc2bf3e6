//! The language of the golden scripts, for whoever answers it: `Solo` in the test beside this, a real etcd in the
//! server's oracle test. A command a line; what it prints is made of the answer's messages alone, so that both print the
//! same. It knows nothing of how a peer is reached.
//!
//! ```text
//! put KEY VALUE [lease=ID] [prev] [ignore_value] [ignore_lease]
//! get KEY [RANGE] [rev=N] [limit=N] [order=ascend|descend|N] [sort=version|create|mod|value|N] [keys_only] [count_only]
//!         [serializable] [min_mod=N] [max_mod=N] [min_create=N] [max_create=N]
//! del KEY [RANGE] [prev]
//! RANGE: end=KEY | prefix | onwards
//! txn                       opens a txn; it is sent by `commit`
//! if TARGET KEY eq|ne|gt|lt VALUE [RANGE]       TARGET: version, create, mod, value, lease, or a number
//! then|else put .. | get .. | del .. | nothing  one operation; times=N makes N of it, their keys numbered from 1
//! then|else txn             opens a txn within; `end` closes it
//! compact REVISION [physical]
//! grant ID TTL | revoke ID | keepalive ID | ttl ID | leases
//! alarm get|raise|clear [member=N] [kind=nospace|corrupt|N]
//! watch KEY [RANGE] [id=N] [from=REVISION] [prev] [progress] [no_put] [no_delete] [fragment]
//! cancel ID | progress      `NAME: watch ..` uses the stream of that name; without a name, one without
//! poll N                    waits for N responses of the stream
//! state                     all keys, all leases
//! advance MS | restart | change_leader | tick | sweep KEYS | remaining ID      in memory only
//! ```
//!
//! Keys and values are bytes: a character stands for the byte of its number, `"\xff"` for 255.

use std::collections::BTreeMap;
use std::error::Error;
use std::path::{Path, PathBuf};

use goldenscript::{Command, Context, Runner};
use tenure_proto::etcdserverpb::{
    LeaseGrantRequest, LeaseRevokeRequest, LeaseTimeToLiveRequest, RangeRequest, TxnRequest,
};

mod building;
mod in_memory;
mod peer;
mod request;
pub mod show;
mod words;

pub use in_memory::InMemory;
pub use peer::{Answer, Peer};

use building::Building;
use words::Words;

/// All scripts below a folder, in order: the path within it, and the text.
pub fn scripts(root: &Path) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for folder in entries(root).into_iter().filter(|path| path.is_dir()) {
        for script in entries(&folder) {
            let name = script.strip_prefix(root).expect("found below it").display().to_string();
            let text = std::fs::read_to_string(&script).unwrap_or_else(|error| panic!("{name}: {error}"));
            found.push((name, text));
        }
    }
    found
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.expect("a readable folder").path()).collect();
    paths.sort();
    paths
}

type Output = Result<String, Box<dyn Error>>;

/// One script on its way, with its own peer.
pub struct Script<P> {
    peer: P,
    building: Option<Building>,
    /// How many responses of each stream were asked for: at the end nothing may be left over.
    streams: BTreeMap<String, ()>,
}

impl<P: Peer> Script<P> {
    pub fn new(peer: P) -> Script<P> {
        Script { peer, building: None, streams: BTreeMap::new() }
    }

    fn key_value(&mut self, name: &str, words: &mut Words) -> Output {
        Ok(match name {
            "put" => show::put(&self.peer.put(request::put(words)?)),
            "get" => show::get(&self.peer.range(request::range(words)?)),
            "del" => show::del(&self.peer.delete_range(request::delete_range(words)?)),
            "compact" => show::compact(&self.peer.compact(request::compact(words)?)),
            "alarm" => show::alarm(&self.peer.alarm(request::alarm(words)?)),
            "state" => self.state(),
            _ => return Err(format!("there is no command {name}").into()),
        })
    }

    fn txn(&mut self, name: &str, words: &mut Words) -> Output {
        if name == "txn" {
            self.building = Some(Building::default());
            return Ok(String::new());
        }
        let building = self.building.as_mut().ok_or("open it with `txn`")?;
        match name {
            "if" => building.compare(request::compare(words)?),
            "then" | "else" => building.operation(name == "then", words)?,
            "end" => building.close()?,
            _ => {
                let txn: TxnRequest = self.building.take().ok_or("open it with `txn`")?.finish()?;
                return Ok(show::txn(&self.peer.txn(txn)));
            }
        }
        Ok(String::new())
    }

    fn lease(&mut self, name: &str, words: &mut Words) -> Output {
        if name == "leases" {
            return Ok(show::leases(&self.peer.leases()));
        }
        let id = words.number()?;
        Ok(match name {
            "grant" => {
                let answer = self.peer.lease_grant(LeaseGrantRequest { id, ttl: words.number()? });
                show::grant(&answer, id == 0)
            }
            "revoke" => show::revoke(&self.peer.lease_revoke(LeaseRevokeRequest { id })),
            "keepalive" => show::keep_alive(&self.peer.keep_alive(id)),
            "ttl" => show::time_to_live(&self.peer.time_to_live(LeaseTimeToLiveRequest { id, keys: true })),
            _ => show::remaining(&self.peer.time_to_live(LeaseTimeToLiveRequest { id, keys: false })),
        })
    }

    fn watch(&mut self, stream: &str, name: &str, words: &mut Words) -> Output {
        self.streams.insert(stream.to_string(), ());
        if name == "poll" {
            let count = words.number()? as usize;
            return Ok(show::watch(&self.peer.receive(stream, count), count));
        }
        let request = match name {
            "watch" => request::watch(words)?,
            "cancel" => request::cancel(words.number()?),
            _ => request::progress(),
        };
        self.peer.send(stream, request);
        Ok(String::new())
    }

    fn in_memory(&mut self, name: &str, words: &mut Words) -> Output {
        match name {
            "advance" => self.peer.advance(u64::try_from(words.number()?)?),
            "restart" => self.peer.restart()?,
            "change_leader" => self.peer.change_leader(),
            "tick" => self.peer.tick_progress(),
            _ => self.peer.sweep(usize::try_from(words.number()?)?),
        }
        Ok(String::new())
    }

    fn state(&mut self) -> String {
        let everything = RangeRequest {
            key: vec![0].into(),
            range_end: vec![0].into(),
            serializable: true,
            ..Default::default()
        };
        let mut state = show::state(&self.peer.range(everything));
        let leases = self.peer.leases().map_or_else(|_| Vec::new(), |response| response.leases);
        let mut ids: Vec<i64> = leases.iter().map(|lease| lease.id).collect();
        ids.sort_unstable();
        for id in ids {
            let answer = self.peer.time_to_live(LeaseTimeToLiveRequest { id, keys: true });
            state.push_str(&show::lease(&answer));
        }
        state
    }
}

impl<P: Peer> Runner for Script<P> {
    type Command = Command;

    fn run(&mut self, command: &Command, context: &Context) -> Output {
        let stream = context.prefix.as_deref().unwrap_or_default();
        let name = command.name.as_str();
        let mut words = Words::of(command);
        let output = match name {
            "txn" | "if" | "then" | "else" | "end" | "commit" => self.txn(name, &mut words),
            "grant" | "revoke" | "keepalive" | "ttl" | "remaining" | "leases" => self.lease(name, &mut words),
            "watch" | "cancel" | "progress" | "poll" => self.watch(stream, name, &mut words),
            "advance" | "restart" | "change_leader" | "tick" | "sweep" => self.in_memory(name, &mut words),
            _ => self.key_value(name, &mut words),
        }?;
        words.done()?;
        Ok(output)
    }

    fn end_script(&mut self) -> Result<(), Box<dyn Error>> {
        if self.building.is_some() {
            return Err("a txn was opened and not committed".into());
        }
        for stream in self.streams.keys() {
            let left = self.peer.receive(stream, 0);
            if !left.is_empty() {
                let left = show::watch(&left, left.len());
                return Err(format!("stream {stream:?} had more to say:\n{left}").into());
            }
        }
        Ok(())
    }
}
