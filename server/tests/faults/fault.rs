//! What goes wrong: each fault is done to a running cluster, lasts a while, and is undone again. It knows processes, networks
//! and disks; it must not know what clients are doing meanwhile.

use std::time::Duration;

use rand::RngExt;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;

use crate::cluster::Cluster;
use crate::network::{Network, Way};
use crate::probe::comes_back;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    KillLeader,
    KillFollower,
    KillAll,
    /// SIGSTOP, for longer than a lease lives.
    PauseLeader,
    PauseFollower,
    /// From the other members; clients reach it.
    CutLeader,
    CutFollower,
    /// The leader is with the smaller part.
    CutMinority,
    /// What the leader says gets lost, what it is told arrives.
    MuteLeader,
    /// The other way round.
    DeafLeader,
    /// Two sides that hear nothing of each other, and one member that hears both.
    Bridge,
    Loss,
    Slow,
    StallDisk,
    FullDisk,
    ClockAhead,
    ClockBack,
    /// One after the other, politely.
    Rolling,
    /// A member killed while packets get lost and another's clock jumps.
    Several,
}

pub const ALL: &[Fault] = &[
    Fault::KillLeader,
    Fault::KillFollower,
    Fault::KillAll,
    Fault::PauseLeader,
    Fault::PauseFollower,
    Fault::CutLeader,
    Fault::CutFollower,
    Fault::CutMinority,
    Fault::MuteLeader,
    Fault::DeafLeader,
    Fault::Bridge,
    Fault::Loss,
    Fault::Slow,
    Fault::StallDisk,
    Fault::FullDisk,
    Fault::ClockAhead,
    Fault::ClockBack,
    Fault::Rolling,
    Fault::Several,
];

impl Fault {
    /// Why it cannot be done to this cluster on this machine.
    pub fn impossible(self, cluster: &Cluster) -> Option<String> {
        let alone = cluster.members.len() == 1;
        match self {
            Fault::KillLeader | Fault::KillAll | Fault::PauseLeader => None,
            Fault::KillFollower | Fault::PauseFollower if alone => Some("there is one member".to_owned()),
            Fault::KillFollower | Fault::PauseFollower | Fault::Rolling => None,
            Fault::CutLeader
            | Fault::CutFollower
            | Fault::CutMinority
            | Fault::MuteLeader
            | Fault::DeafLeader
            | Fault::Bridge
            | Fault::Loss
            | Fault::Slow => match &cluster.network {
                Ok(_) if alone => Some("there is one member".to_owned()),
                Ok(_) => None,
                Err(why) => Some(why.clone()),
            },
            Fault::StallDisk | Fault::FullDisk => cluster.members[0].volume.as_ref().err().cloned(),
            Fault::ClockAhead | Fault::ClockBack => cluster.clocks.as_ref().err().cloned(),
            Fault::Several => {
                let network = cluster.network.as_ref().err().or(cluster.clocks.as_ref().err());
                network.cloned().or(alone.then(|| "there is one member".to_owned()))
            }
        }
    }

    /// Does it, lets it last, undoes it. `leader` is a member's number. What was done, in words.
    pub async fn inflict(
        self,
        cluster: &mut Cluster,
        leader: usize,
        lasting: Duration,
        chance: &mut StdRng,
    ) -> String {
        let mut followers: Vec<usize> =
            (0..cluster.members.len()).filter(|number| *number != leader).collect();
        followers.shuffle(chance);
        let follower = followers.first().copied().unwrap_or(leader);
        match self {
            Fault::KillLeader => kill(cluster, &[leader], lasting).await,
            Fault::KillFollower => kill(cluster, &[follower], lasting).await,
            Fault::KillAll => {
                let all: Vec<usize> = (0..cluster.members.len()).collect();
                kill(cluster, &all, Duration::from_millis(chance.random_range(0..500))).await
            }
            Fault::PauseLeader => pause(cluster, leader, lasting).await,
            Fault::PauseFollower => pause(cluster, follower, lasting).await,
            Fault::StallDisk => stall(cluster, leader, lasting, chance).await,
            Fault::FullDisk => fill(cluster, follower, lasting).await,
            Fault::ClockAhead => shift(cluster, leader, 100_000, lasting).await,
            Fault::ClockBack => shift(cluster, leader, -100_000, lasting).await,
            Fault::Rolling => rolling(cluster).await,
            Fault::Several => several(cluster, leader, follower, lasting).await,
            Fault::CutLeader
            | Fault::CutFollower
            | Fault::CutMinority
            | Fault::MuteLeader
            | Fault::DeafLeader
            | Fault::Bridge
            | Fault::Loss
            | Fault::Slow => self.disturb(cluster, leader, &followers, lasting).await,
        }
    }

    /// Those that only the network does.
    async fn disturb(
        self,
        cluster: &mut Cluster,
        leader: usize,
        followers: &[usize],
        lasting: Duration,
    ) -> String {
        let Ok(network) = &mut cluster.network else { return "no network to disturb".to_owned() };
        let what = match self {
            Fault::CutLeader => {
                followers.iter().for_each(|other| network.cut(leader, *other));
                format!("leader {leader} cut off")
            }
            Fault::CutFollower => {
                let alone = followers[0];
                let others = followers[1..].iter().chain([&leader]);
                others.for_each(|other| network.cut(alone, *other));
                format!("follower {alone} cut off")
            }
            Fault::CutMinority => {
                let small = [&[leader], &followers[..followers.len().div_ceil(2) - 1]].concat();
                let large: Vec<usize> =
                    followers.iter().copied().filter(|other| !small.contains(other)).collect();
                part(network, &small, &large);
                format!("{small:?} with the leader {leader} cut off from {large:?}")
            }
            Fault::MuteLeader => {
                followers.iter().for_each(|other| network.set(leader, *other, Way::Cut));
                format!("nobody hears leader {leader}")
            }
            Fault::DeafLeader => {
                followers.iter().for_each(|other| network.set(*other, leader, Way::Cut));
                format!("leader {leader} hears nobody")
            }
            Fault::Bridge => {
                let (between, others) = followers.split_last().expect("there are at least two followers");
                let (near, far) = others.split_at(others.len() / 2);
                let near = [&[leader], near].concat();
                part(network, &near, far);
                format!("{near:?} and {far:?} hear of each other only through {between}")
            }
            Fault::Loss => {
                for one in followers.iter().chain([&leader]) {
                    for other in followers.iter().chain([&leader]).filter(|other| *other != one) {
                        network.set(*one, *other, Way::Lossy(25));
                    }
                }
                "every fourth packet between members lost".to_owned()
            }
            _ => {
                network.slow(leader);
                let how =
                    if network.delays { "delayed by 60 ms" } else { "on a link of 1 Mbit/s (no netem here)" };
                format!("all that leader {leader} sends {how}")
            }
        };
        tokio::time::sleep(lasting).await;
        if let Ok(network) = &mut cluster.network {
            network.heal();
        }
        what
    }
}

fn part(network: &mut Network, some: &[usize], others: &[usize]) {
    for one in some {
        others.iter().for_each(|other| network.cut(*one, *other));
    }
}

async fn kill(cluster: &mut Cluster, victims: &[usize], lasting: Duration) -> String {
    victims.iter().for_each(|victim| cluster.members[*victim].kill());
    tokio::time::sleep(lasting).await;
    victims.iter().for_each(|victim| cluster.members[*victim].begin());
    format!("{victims:?} killed")
}

async fn pause(cluster: &mut Cluster, victim: usize, lasting: Duration) -> String {
    cluster.members[victim].pause();
    tokio::time::sleep(lasting).await;
    cluster.members[victim].resume();
    format!("{victim} stopped")
}

/// Stalls the disk for moments, and in the end for longer than an election takes.
async fn stall(cluster: &mut Cluster, victim: usize, lasting: Duration, chance: &mut StdRng) -> String {
    let Ok(volume) = &cluster.members[victim].volume else { return "no disk to stall".to_owned() };
    let end = tokio::time::Instant::now() + lasting / 2;
    while tokio::time::Instant::now() < end {
        volume.stall();
        tokio::time::sleep(Duration::from_millis(chance.random_range(50..300))).await;
        volume.thaw();
        tokio::time::sleep(Duration::from_millis(chance.random_range(10..100))).await;
    }
    volume.stall();
    tokio::time::sleep(lasting / 2).await;
    volume.thaw();
    format!("disk of {victim} slow, then stalled")
}

async fn fill(cluster: &mut Cluster, victim: usize, lasting: Duration) -> String {
    let Ok(volume) = &cluster.members[victim].volume else { return "no disk to fill".to_owned() };
    volume.fill();
    tokio::time::sleep(lasting).await;
    volume.free();
    // What failed while the disk was full may end it now, or when it notices.
    cluster.members[victim].may_end = true;
    let ended = if cluster.members[victim].is_running() { "it runs still" } else { "it ended" };
    format!("disk of {victim} full: {ended}")
}

async fn shift(cluster: &mut Cluster, victim: usize, seconds: i64, lasting: Duration) -> String {
    cluster.members[victim].shift_clock(seconds);
    tokio::time::sleep(lasting).await;
    cluster.members[victim].shift_clock(0);
    format!("clock of {victim} off by {seconds} s")
}

async fn rolling(cluster: &mut Cluster) -> String {
    let mut polite = 0;
    for number in 0..cluster.members.len() {
        polite += usize::from(cluster.members[number].stop());
        cluster.members[number].begin();
        // If it does not, whoever asks all of them will find that.
        comes_back(&mut cluster.members[number]).await;
    }
    format!("restarted one by one, {polite} of {} politely", cluster.members.len())
}

async fn several(cluster: &mut Cluster, leader: usize, follower: usize, lasting: Duration) -> String {
    let members = cluster.members.len();
    cluster.members[leader].shift_clock(-3_600);
    if let Ok(network) = &mut cluster.network {
        for one in 0..members {
            (0..members)
                .filter(|other| *other != one)
                .for_each(|other| network.set(one, other, Way::Lossy(10)));
        }
    }
    tokio::time::sleep(lasting / 3).await;
    cluster.members[follower].kill();
    tokio::time::sleep(lasting / 3).await;
    cluster.members[leader].pause();
    tokio::time::sleep(lasting / 3).await;
    cluster.members[leader].resume();
    cluster.members[follower].begin();
    if let Ok(network) = &mut cluster.network {
        network.heal();
    }
    cluster.members[leader].shift_clock(0);
    format!(
        "every tenth packet lost, clock of {leader} off by an hour, {follower} killed, then {leader} stopped"
    )
}
