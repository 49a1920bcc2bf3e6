//! The network between members: bytes arrive late, in order, or not for as long as a link is cut; a connection ends in good
//! order, by a reset, or by silence. Moves only when it is told the time. Knows nothing of what the bytes mean.
//!
//! Nothing is lost from within a connection, as nothing is in TCP: what a cut link holds back arrives once it is mended,
//! unless a reset comes first.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::{Buf, Bytes};
use futures::future::BoxFuture;
use parking_lot::Mutex;
use tenured::ids::Dice;
use tenured::net::{Door, Net, Wire};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// What one direction of a connection holds before its writer waits, bytes.
const WINDOW: usize = 1 << 20;

/// The whole network. Clones share it.
#[derive(Clone)]
pub struct Network {
    web: Arc<Mutex<Web>>,
}

struct Web {
    now_ms: u64,
    dice: Dice,
    hosts: Vec<Host>,
    /// From, to.
    links: Vec<Vec<Link>>,
    pipes: BTreeMap<u64, Pipe>,
    dials: BTreeMap<u64, Dial>,
    next: u64,
}

#[derive(Default)]
struct Host {
    /// Whether it answers at all, be it by a refusal.
    up: bool,
    door: Option<Doorway>,
}

#[derive(Default)]
struct Doorway {
    callers: VecDeque<Socket>,
    waker: Option<Waker>,
}

#[derive(Clone, Copy)]
struct Link {
    cut: bool,
    delay_ms: (u64, u64),
}

/// One direction of a connection.
struct Pipe {
    from: usize,
    to: usize,
    /// The other direction.
    twin: u64,
    under_way: VecDeque<(u64, Parcel)>,
    arrived: VecDeque<Bytes>,
    /// Bytes written and not read.
    held: usize,
    ended: bool,
    /// A reset arrived: at the reader, or at the writer by way of the twin.
    reset: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
    reader_gone: bool,
    writer_gone: bool,
}

enum Parcel {
    Bytes(Bytes),
    End,
    Reset,
}

struct Dial {
    from: usize,
    to: usize,
    due_ms: u64,
    outcome: Option<io::Result<Socket>>,
    waker: Option<Waker>,
}

const CALM: Link = Link { cut: false, delay_ms: (0, 2) };

impl Network {
    pub fn new(hosts: usize, dice: Dice) -> Network {
        let web = Web {
            now_ms: 0,
            dice,
            hosts: (0..hosts).map(|_| Host::default()).collect(),
            links: vec![vec![CALM; hosts]; hosts],
            pipes: BTreeMap::new(),
            dials: BTreeMap::new(),
            next: 0,
        };
        Network { web: Arc::new(Mutex::new(web)) }
    }

    /// The network as one member sees it.
    pub fn station(&self, member: usize) -> Station {
        Station { network: self.clone(), member }
    }

    /// Where a member is called.
    pub fn address(member: usize) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, 1 + member as u8], 2380))
    }

    /// Delivers what is due.
    pub fn tick(&self, now_ms: u64) {
        let wakers = {
            let mut web = self.web.lock();
            web.now_ms = now_ms;
            let mut wakers = Vec::new();
            web.answer_dials(self, &mut wakers);
            web.deliver(&mut wakers);
            wakers
        };
        wakers.into_iter().for_each(Waker::wake);
    }

    pub fn power(&self, member: usize, up: bool) {
        let doorway = {
            let mut web = self.web.lock();
            web.hosts[member].up = up;
            web.hosts[member].door.take()
        };
        drop(doorway);
    }

    /// Ends all that a member has open, as a kernel does for a process that is gone: one after the other, in the order in
    /// which they were opened. (In which order a runtime drops its tasks depends on how many there were in the whole process.)
    pub fn hang_up(&self, member: usize) {
        let dials: Vec<Dial> = {
            let mut web = self.web.lock();
            let ids: Vec<u64> = web.pipes.keys().copied().collect();
            for id in ids {
                let Some(pipe) = web.pipes.get(&id) else { continue };
                if pipe.from == member {
                    web.end_writing(id);
                } else if pipe.to == member {
                    web.end_reading(id);
                }
            }
            web.dials.extract_if(.., |_, dial| dial.from == member).map(|(_, dial)| dial).collect()
        };
        drop(dials);
    }

    /// Cuts or mends one direction.
    pub fn cut(&self, from: usize, to: usize, cut: bool) {
        self.web.lock().links[from][to].cut = cut;
    }

    pub fn delay(&self, from: usize, to: usize, delay_ms: (u64, u64)) {
        self.web.lock().links[from][to].delay_ms = delay_ms;
    }

    /// All links are well again.
    pub fn calm(&self) {
        self.web.lock().links.iter_mut().flatten().for_each(|link| *link = CALM);
    }

    /// Resets all connections between two members.
    pub fn reset(&self, one: usize, other: usize) {
        let mut web = self.web.lock();
        let now_ms = web.now_ms;
        for pipe in web.pipes.values_mut() {
            if (pipe.from, pipe.to) == (one, other) || (pipe.to, pipe.from) == (one, other) {
                pipe.under_way.push_front((now_ms, Parcel::Reset));
            }
        }
    }

    fn dial(&self, from: usize, to: usize) -> Dialling {
        let mut web = self.web.lock();
        let (id, due_ms) = (web.number(), web.due(from, to));
        web.dials.insert(id, Dial { from, to, due_ms, outcome: None, waker: None });
        Dialling { network: self.clone(), id }
    }
}

impl Web {
    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    fn due(&mut self, from: usize, to: usize) -> u64 {
        let (least, most) = self.links[from][to].delay_ms;
        self.now_ms + 1 + least + self.dice.below(most - least + 1)
    }

    /// A call gets through once both directions are whole and there is somebody to answer it.
    fn answer_dials(&mut self, network: &Network, wakers: &mut Vec<Waker>) {
        let ready = |web: &Web, dial: &Dial| {
            let whole = !web.links[dial.from][dial.to].cut && !web.links[dial.to][dial.from].cut;
            dial.outcome.is_none() && dial.due_ms <= web.now_ms && whole && web.hosts[dial.to].up
        };
        let due: Vec<u64> =
            self.dials.iter().filter(|(_, dial)| ready(self, dial)).map(|(id, _)| *id).collect();
        for id in due {
            let (from, to) = (self.dials[&id].from, self.dials[&id].to);
            let outcome = if self.hosts[to].door.is_some() {
                let (caller, callee) = self.connect(network, from, to);
                if let Some(door) = &mut self.hosts[to].door {
                    door.callers.push_back(callee);
                    wakers.extend(door.waker.take());
                }
                Ok(caller)
            } else {
                Err(io::ErrorKind::ConnectionRefused.into())
            };
            let dial = self.dials.get_mut(&id).expect("its id was just read");
            dial.outcome = Some(outcome);
            wakers.extend(dial.waker.take());
        }
    }

    fn connect(&mut self, network: &Network, from: usize, to: usize) -> (Socket, Socket) {
        let (there, back) = (self.number(), self.number());
        for (id, twin, from, to) in [(there, back, from, to), (back, there, to, from)] {
            self.pipes.insert(id, Pipe::new(from, to, twin));
        }
        let socket = |reads, writes| Socket { network: network.clone(), reads, writes };
        (socket(back, there), socket(there, back))
    }

    fn deliver(&mut self, wakers: &mut Vec<Waker>) {
        let (mut resets, mut reset_twins) = (Vec::new(), Vec::new());
        for pipe in self.pipes.values_mut() {
            if self.links[pipe.from][pipe.to].cut || !self.hosts[pipe.to].up {
                continue;
            }
            while pipe.under_way.front().is_some_and(|(due_ms, _)| *due_ms <= self.now_ms) {
                let Some((_, parcel)) = pipe.under_way.pop_front() else { break };
                match parcel {
                    Parcel::Bytes(_) if pipe.reader_gone => resets.push(pipe.twin),
                    Parcel::Bytes(bytes) => pipe.arrived.push_back(bytes),
                    Parcel::End => pipe.ended = true,
                    Parcel::Reset => {
                        pipe.reset = true;
                        pipe.under_way.clear();
                        reset_twins.push(pipe.twin);
                    }
                }
                wakers.extend(pipe.reader.take());
            }
        }
        for twin in reset_twins {
            if let Some(pipe) = self.pipes.get_mut(&twin) {
                pipe.reset = true;
                wakers.extend(pipe.writer.take());
                wakers.extend(pipe.reader.take());
            }
        }
        for pipe in resets {
            self.send(pipe, Parcel::Reset);
        }
        self.pipes.retain(|_, pipe| !(pipe.reader_gone && pipe.writer_gone));
    }

    /// Says so at the other end, unless it did before or has no power to.
    fn end_writing(&mut self, pipe: u64) {
        let speaks = |pipe: &Pipe| !pipe.writer_gone && self.hosts[pipe.from].up;
        if self.pipes.get(&pipe).is_some_and(speaks) {
            self.send(pipe, Parcel::End);
        }
        if let Some(pipe) = self.pipes.get_mut(&pipe) {
            pipe.writer_gone = true;
        }
    }

    fn end_reading(&mut self, pipe: u64) {
        if let Some(pipe) = self.pipes.get_mut(&pipe) {
            pipe.reader_gone = true;
            pipe.arrived.clear();
        }
    }

    fn send(&mut self, pipe: u64, parcel: Parcel) {
        let Some((from, to)) = self.pipes.get(&pipe).map(|pipe| (pipe.from, pipe.to)) else { return };
        let due_ms = self.due(from, to);
        if let Some(pipe) = self.pipes.get_mut(&pipe) {
            let last_ms = pipe.under_way.back().map_or(0, |(due_ms, _)| *due_ms);
            pipe.under_way.push_back((due_ms.max(last_ms), parcel));
        }
    }
}

impl Pipe {
    fn new(from: usize, to: usize, twin: u64) -> Pipe {
        Pipe {
            from,
            to,
            twin,
            under_way: VecDeque::new(),
            arrived: VecDeque::new(),
            held: 0,
            ended: false,
            reset: false,
            reader: None,
            writer: None,
            reader_gone: false,
            writer_gone: false,
        }
    }
}

/// A member's place in the network.
#[derive(Clone)]
pub struct Station {
    network: Network,
    member: usize,
}

impl fmt::Debug for Station {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Station({})", self.member)
    }
}

impl Net for Station {
    fn dial(&self, host: String, _port: u16) -> BoxFuture<'static, io::Result<Box<dyn Wire>>> {
        let hosts = self.network.web.lock().hosts.len();
        let to = (0..hosts).find(|member| Network::address(*member).ip().to_string() == host);
        let Some(to) = to else {
            return Box::pin(async { Err(io::ErrorKind::NotFound.into()) });
        };
        let dialling = self.network.dial(self.member, to);
        Box::pin(async move { dialling.await.map(|socket| Box::new(socket) as Box<dyn Wire>) })
    }

    fn listen(&self, _address: SocketAddr) -> BoxFuture<'static, io::Result<Box<dyn Door>>> {
        let before = self.network.web.lock().hosts[self.member].door.replace(Doorway::default());
        drop(before);
        let door = SimulatedDoor { network: self.network.clone(), member: self.member };
        Box::pin(async move { Ok(Box::new(door) as Box<dyn Door>) })
    }
}

struct Dialling {
    network: Network,
    id: u64,
}

impl Future for Dialling {
    type Output = io::Result<Socket>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let mut web = self.network.web.lock();
        let Some(dial) = web.dials.get_mut(&self.id) else {
            return Poll::Ready(Err(io::ErrorKind::NotConnected.into()));
        };
        match dial.outcome.take() {
            Some(outcome) => {
                web.dials.remove(&self.id);
                Poll::Ready(outcome)
            }
            None => {
                dial.waker = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }
}

impl Drop for Dialling {
    fn drop(&mut self) {
        let dial = self.network.web.lock().dials.remove(&self.id);
        // Outside of the lock: a socket that nobody took hangs up.
        drop(dial);
    }
}

struct SimulatedDoor {
    network: Network,
    member: usize,
}

impl Door for SimulatedDoor {
    fn accept(&mut self) -> BoxFuture<'_, io::Result<Box<dyn Wire>>> {
        Box::pin(std::future::poll_fn(|context| {
            let mut web = self.network.web.lock();
            let Some(door) = &mut web.hosts[self.member].door else { return Poll::Pending };
            match door.callers.pop_front() {
                Some(socket) => Poll::Ready(Ok(Box::new(socket) as Box<dyn Wire>)),
                None => {
                    door.waker = Some(context.waker().clone());
                    Poll::Pending
                }
            }
        }))
    }
}

impl Drop for SimulatedDoor {
    fn drop(&mut self) {
        let doorway = self.network.web.lock().hosts[self.member].door.take();
        drop(doorway);
    }
}

/// One end of a connection.
struct Socket {
    network: Network,
    reads: u64,
    writes: u64,
}

impl AsyncRead for Socket {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut web = self.network.web.lock();
        let Some(pipe) = web.pipes.get_mut(&self.reads) else { return Poll::Ready(Ok(())) };
        if pipe.reset {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        let Some(first) = pipe.arrived.front_mut() else {
            if pipe.ended {
                return Poll::Ready(Ok(()));
            }
            pipe.reader = Some(context.waker().clone());
            return Poll::Pending;
        };
        let count = first.len().min(buffer.remaining());
        buffer.put_slice(&first[..count]);
        first.advance(count);
        if first.is_empty() {
            pipe.arrived.pop_front();
        }
        pipe.held -= count;
        let waker = pipe.writer.take();
        drop(web);
        if let Some(waker) = waker {
            waker.wake();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let mut web = self.network.web.lock();
        let Some(pipe) = web.pipes.get_mut(&self.writes) else {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        };
        if pipe.reset {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        if pipe.held >= WINDOW {
            pipe.writer = Some(context.waker().clone());
            return Poll::Pending;
        }
        let count = bytes.len().min(WINDOW - pipe.held);
        pipe.held += count;
        web.send(self.writes, Parcel::Bytes(Bytes::copy_from_slice(&bytes[..count])));
        Poll::Ready(Ok(count))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.network.web.lock().send(self.writes, Parcel::End);
        Poll::Ready(Ok(()))
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        let mut web = self.network.web.lock();
        web.end_writing(self.writes);
        web.end_reading(self.reads);
    }
}
