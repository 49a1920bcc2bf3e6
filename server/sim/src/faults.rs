//! What goes wrong in a seed's life, and when: drawn from the seed before the next thing goes wrong. Knows how to do harm and
//! how to mend it, not what must hold meanwhile.

use std::fmt;

use tenured::ids::Dice;

use crate::member::{DISK_MS, Death, Member};
use crate::network::Network;

/// One thing that goes wrong.
#[derive(Clone, Debug)]
pub enum Fault {
    Die {
        member: usize,
        death: Death,
        down_ms: u64,
    },
    Stop {
        member: usize,
        down_ms: u64,
    },
    /// It stands still and knows nothing of it.
    Freeze {
        member: usize,
        ms: u64,
    },
    /// Nobody reaches it and it reaches nobody.
    Isolate {
        member: usize,
        ms: u64,
    },
    /// Some reach each other, the rest each other.
    Split {
        side: Vec<usize>,
        ms: u64,
    },
    /// One direction between two.
    OneWay {
        from: usize,
        to: usize,
        ms: u64,
    },
    Delay {
        from: usize,
        to: usize,
        delay_ms: (u64, u64),
        ms: u64,
    },
    Reset {
        one: usize,
        other: usize,
    },
    SlowDisk {
        member: usize,
        most_ms: u64,
        ms: u64,
    },
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// Goes wrong now and then.
pub struct Faults {
    dice: Dice,
    next_ms: u64,
    /// What is to be mended, and when.
    wounds: Vec<(u64, Wound)>,
    /// Members to be started, and when.
    down: Vec<(u64, usize)>,
}

enum Wound {
    Cut { from: usize, to: usize },
    Delayed { from: usize, to: usize },
    SlowDisk { member: usize },
}

impl Faults {
    pub fn new(mut dice: Dice) -> Faults {
        let next_ms = 500 + dice.below(1_500);
        Faults { dice, next_ms, wounds: Vec::new(), down: Vec::new() }
    }

    /// Mends what is due, starts whoever is due, and does new harm if it is time; gives what it did.
    pub fn tick(&mut self, now_ms: u64, members: &mut [Member], network: &Network) -> Option<Fault> {
        self.mend(now_ms, members, network);
        self.restart(now_ms, members);
        if now_ms < self.next_ms {
            return None;
        }
        self.next_ms = now_ms + 100 + self.dice.below(2_500);
        let fault = self.draw(members);
        self.harm(&fault, now_ms, members, network);
        Some(fault)
    }

    /// Makes all well at once.
    pub fn end(&mut self, now_ms: u64, members: &mut [Member], network: &Network) {
        network.calm();
        self.wounds.clear();
        for member in members.iter_mut() {
            member.slow_disk(DISK_MS);
            if let Some(life) = &mut member.life {
                life.frozen_until_ms = life.frozen_until_ms.min(now_ms);
            }
        }
        for (due_ms, _) in &mut self.down {
            *due_ms = now_ms;
        }
        self.restart(now_ms, members);
    }

    /// Starts whoever is due, and whoever has come to a good end by itself.
    pub fn restart(&mut self, now_ms: u64, members: &mut [Member]) {
        for member in members.iter_mut() {
            if member.ended() == Some(Ok(())) {
                member.die(Death::Killed);
            }
        }
        let due: Vec<usize> =
            self.down.iter().filter(|(due_ms, _)| *due_ms <= now_ms).map(|(_, member)| *member).collect();
        for index in due {
            if members[index].life.is_none() {
                self.down.retain(|(_, member)| *member != index);
                let dice = Dice::seeded(self.dice.number());
                members[index].start(now_ms, dice);
            }
        }
    }

    fn draw(&mut self, members: &[Member]) -> Fault {
        let count = members.len() as u64;
        let member = self.victim(members);
        let other = (member + 1 + self.dice.below(count.max(2) - 1) as usize) % members.len();
        let ms = 200 + self.dice.below(3_500);
        let alone = members.len() == 1;
        match self.dice.below(if alone { 7 } else { 16 }) {
            0 | 1 => Fault::Die {
                member,
                death: Death::PowerCut { seed: self.dice.number() },
                down_ms: 50 + self.dice.below(3_000),
            },
            2 => Fault::Die { member, death: Death::Killed, down_ms: 50 + self.dice.below(3_000) },
            3 => Fault::Stop { member, down_ms: self.dice.below(2_000) },
            4 => Fault::SlowDisk { member, most_ms: 20 + self.dice.below(400), ms },
            5 | 6 => Fault::Freeze { member, ms },
            7..=9 => Fault::Isolate { member, ms },
            10 | 11 => {
                let side = (0..members.len()).filter(|_| self.dice.below(2) == 0).collect();
                Fault::Split { side, ms }
            }
            12 => Fault::OneWay { from: member, to: other, ms },
            13 | 14 => {
                let least = self.dice.below(60);
                let delay_ms = (least, least + self.dice.below(300));
                Fault::Delay { from: member, to: other, delay_ms, ms }
            }
            _ => Fault::Reset { one: member, other },
        }
    }

    /// Leaders are hit more often than others.
    fn victim(&mut self, members: &[Member]) -> usize {
        let leads =
            |member: &&Member| member.desk().is_some_and(|desk| desk.consensus.leadership().borrow().here);
        match members.iter().find(leads).filter(|_| self.dice.below(2) == 0) {
            Some(leader) => leader.index,
            None => self.dice.below(members.len() as u64) as usize,
        }
    }

    fn harm(&mut self, fault: &Fault, now_ms: u64, members: &mut [Member], network: &Network) {
        match fault {
            Fault::Die { member, death, down_ms } => {
                if members[*member].life.is_some() {
                    members[*member].die(*death);
                    self.down.push((now_ms + down_ms, *member));
                }
            }
            Fault::Stop { member, down_ms } => {
                if members[*member].life.is_some() {
                    members[*member].stop();
                    self.down.push((now_ms + down_ms, *member));
                }
            }
            Fault::Freeze { member, ms } => {
                if let Some(life) = &mut members[*member].life {
                    life.frozen_until_ms = now_ms + ms;
                }
            }
            Fault::Isolate { member, ms } => self.split(&[*member], now_ms + ms, members.len(), network),
            Fault::Split { side, ms } => self.split(side, now_ms + ms, members.len(), network),
            Fault::OneWay { from, to, ms } => {
                network.cut(*from, *to, true);
                self.wounds.push((now_ms + ms, Wound::Cut { from: *from, to: *to }));
            }
            Fault::Delay { from, to, delay_ms, ms } => {
                network.delay(*from, *to, *delay_ms);
                self.wounds.push((now_ms + ms, Wound::Delayed { from: *from, to: *to }));
            }
            Fault::Reset { one, other } => network.reset(*one, *other),
            Fault::SlowDisk { member, most_ms, ms } => {
                members[*member].slow_disk(*most_ms);
                self.wounds.push((now_ms + ms, Wound::SlowDisk { member: *member }));
            }
        }
    }

    fn split(&mut self, side: &[usize], until_ms: u64, members: usize, network: &Network) {
        for from in 0..members {
            for to in (0..members).filter(|to| side.contains(to) != side.contains(&from)) {
                network.cut(from, to, true);
                self.wounds.push((until_ms, Wound::Cut { from, to }));
            }
        }
    }

    fn mend(&mut self, now_ms: u64, members: &[Member], network: &Network) {
        for (_, wound) in self.wounds.extract_if(.., |(until_ms, _)| *until_ms <= now_ms) {
            match wound {
                Wound::Cut { from, to } => network.cut(from, to, false),
                Wound::Delayed { from, to } => network.delay(from, to, (0, 2)),
                Wound::SlowDisk { member } => members[member].slow_disk(DISK_MS),
            }
        }
    }
}
