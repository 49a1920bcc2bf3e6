//! Clients that ask: each does one thing after another, at one member until that fails it. What each asks next follows from
//! its dice and from what it was told. The witness reads the journal; clients judge nothing.

use bytes::Bytes;
use tenured::ids::Dice;

use crate::errand;
use crate::journal::{Ask, Journal, Told};
use crate::member::Member;

/// Keys that are put, swapped and deleted at random: few, so that clients meet.
pub const PLAIN: &[u8] = b"k/";
/// Keys that go only with their leases.
pub const LEASED: &[u8] = b"lease/";
const PLAIN_KEYS: u64 = 5;

/// What a client is for.
#[derive(Clone, Debug)]
pub enum Trade {
    /// Puts, swaps, deletes and reads plain keys.
    Worker,
    /// Gives up history now and then.
    Compactor,
    /// Holds one lease after another.
    Holder(Holding),
}

/// What a holder has.
#[derive(Clone, Debug, Default)]
pub struct Holding {
    lease: Option<i64>,
    ttl_s: i64,
    keys: u64,
    /// Renewals until it lets go.
    renewals: u64,
}

pub struct Client {
    number: usize,
    dice: Dice,
    trade: Trade,
    home: usize,
    /// The exchange under way, and when it is given up.
    doing: Option<(usize, u64)>,
    next_ms: u64,
    made: u64,
    /// What it last heard a plain key was at, and the last header.
    known_at: i64,
    header_at: i64,
    /// A planted bug: asks without a proof what it takes for proven.
    trusts: bool,
}

impl Client {
    pub fn new(number: usize, trade: Trade, dice: Dice, trusts: bool) -> Client {
        let home = number;
        Client {
            number,
            dice,
            trade,
            home,
            doing: None,
            next_ms: 0,
            made: 0,
            known_at: 0,
            header_at: 0,
            trusts,
        }
    }

    pub fn idle(&self) -> bool {
        self.doing.is_none()
    }

    /// Hears what it was told, and asks the next question unless all is over.
    pub fn tick(&mut self, now_ms: u64, members: &[Member], journal: &Journal, over: bool) {
        if let Some((exchange, until_ms)) = self.doing {
            if now_ms >= until_ms {
                journal.tell(exchange, Told::Unknown("the client gave up".into()));
            }
            let Some(told) = journal.told(exchange) else { return };
            self.doing = None;
            self.hear(&told, now_ms, members.len());
        }
        if over || now_ms < self.next_ms {
            return;
        }
        self.home %= members.len();
        let member = &members[self.home];
        let Some(desk) = member.desk().filter(|_| member.serving()) else {
            self.move_on(now_ms, members.len());
            return;
        };
        let ask = self.choose();
        let exchange = journal.ask(self.number, self.home, member.lives, ask.clone());
        self.doing = Some((exchange, now_ms + 2_000 + self.dice.below(7_000)));
        let really = match ask {
            Ask::Get { key, serializable } => Ask::Get { key, serializable: serializable || self.trusts },
            ask => ask,
        };
        let journal = journal.clone();
        member.spawn(async move { journal.tell(exchange, errand::run(&desk, really).await) });
    }

    /// Asks somebody else, a little later.
    fn move_on(&mut self, now_ms: u64, members: usize) {
        self.home = self.dice.below(members as u64) as usize;
        self.next_ms = now_ms + 10 + self.dice.below(200);
    }

    fn choose(&mut self) -> Ask {
        match self.trade.clone() {
            Trade::Worker => self.work(),
            Trade::Compactor if self.made.is_multiple_of(2) => {
                self.made += 1;
                Ask::Get { key: Bytes::from_static(b"k/a"), serializable: true }
            }
            Trade::Compactor => {
                self.made += 1;
                Ask::Compact { at: (self.header_at - self.dice.below(40) as i64).max(1) }
            }
            Trade::Holder(holding) => self.hold(holding),
        }
    }

    fn work(&mut self) -> Ask {
        let mut key = PLAIN.to_vec();
        key.push(b'a' + self.dice.below(PLAIN_KEYS) as u8);
        let key = Bytes::from(key);
        match self.dice.below(20) {
            0..=6 => Ask::Put { key, value: self.value(), lease: 0 },
            7..=11 => Ask::Get { key, serializable: false },
            12..=13 => Ask::Get { key, serializable: true },
            14..=17 => Ask::Swap { key, at: self.known_at, value: self.value() },
            _ => Ask::Delete { key },
        }
    }

    fn hold(&mut self, mut holding: Holding) -> Ask {
        let ask = match holding.lease {
            None => {
                holding = Holding {
                    keys: 1 + self.dice.below(3),
                    renewals: self.dice.below(8),
                    ttl_s: 1 + self.dice.below(4) as i64,
                    lease: None,
                };
                Ask::Grant { ttl_s: holding.ttl_s }
            }
            Some(lease) if holding.keys > 0 => {
                holding.keys -= 1;
                let mut key = LEASED.to_vec();
                key.extend_from_slice(format!("{lease:x}/{}", holding.keys).as_bytes());
                Ask::Put { key: key.into(), value: self.value(), lease }
            }
            Some(lease) if holding.renewals > 0 => {
                holding.renewals -= 1;
                if self.dice.below(5) == 0 { Ask::Left { lease } } else { Ask::Renew { lease } }
            }
            Some(lease) if self.dice.below(3) == 0 => Ask::Revoke { lease },
            // Forgotten, as by a client that died.
            Some(lease) => Ask::Left { lease },
        };
        self.trade = Trade::Holder(holding);
        ask
    }

    /// Said by nobody else, and never again.
    fn value(&mut self) -> Bytes {
        self.made += 1;
        format!("{}-{}", self.number, self.made).into()
    }

    fn hear(&mut self, told: &Told, now_ms: u64, members: usize) {
        self.next_ms = now_ms + self.dice.below(60);
        if let Some(at) = told.at() {
            self.header_at = at;
            self.known_at = match told {
                Told::Got { held, .. } | Told::Swapped { held: held @ Some(_), .. } => {
                    held.as_ref().map_or(0, |held| held.at)
                }
                _ => at,
            };
        }
        let failed =
            matches!(told, Told::Unknown(_)) || matches!(told, Told::Refused(why) if why == "NoLeader");
        if failed {
            self.move_on(now_ms, members);
        }
        match &mut self.trade {
            Trade::Worker => {}
            Trade::Compactor => self.next_ms = now_ms + 500 + self.dice.below(1_500),
            Trade::Holder(holding) => {
                let over = match told {
                    Told::Granted { lease, ttl_s, .. } => {
                        (holding.lease, holding.ttl_s) = (Some(*lease), *ttl_s);
                        false
                    }
                    Told::Renewed { ttl_s } => *ttl_s <= 0,
                    Told::Revoked { .. } => true,
                    Told::Refused(why) => why != "NoLeader" && why != "Busy",
                    Told::Left { granted_s, .. } => granted_s.is_none() || holding.renewals == 0,
                    _ => false,
                };
                if over {
                    *holding = Holding::default();
                } else if holding.keys == 0 && !failed {
                    let third_ms = holding.ttl_s.unsigned_abs() * 1_000 / 3;
                    self.next_ms = now_ms + third_ms / 2 + self.dice.below(third_ms + 1);
                }
            }
        }
    }
}
