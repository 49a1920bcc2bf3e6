//! Runs futures by hand, in the order in which they were started. A future is polled only after its waker was called, so that
//! a lost wake-up is seen as a task that hangs, as it would be in a real program.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};

#[derive(Default)]
pub struct Tasks {
    tasks: Vec<Task>,
}

/// What became of a task: the test's end of it.
pub struct Started<T> {
    number: usize,
    result: Arc<Mutex<Option<T>>>,
}

struct Task {
    /// None: it has ended or was stopped.
    future: Option<Pin<Box<dyn Future<Output = ()>>>>,
    woken: Arc<Woken>,
}

struct Woken(AtomicBool);

impl Tasks {
    /// Takes a client in. It does nothing before [`Tasks::settle`].
    pub fn start<T: 'static>(&mut self, future: impl Future<Output = T> + 'static) -> Started<T> {
        let result = Arc::new(Mutex::new(None));
        let place = result.clone();
        let future = Box::pin(async move {
            let value = future.await;
            *place.lock().unwrap() = Some(value);
        });
        let woken = Arc::new(Woken(AtomicBool::new(true)));
        self.tasks.push(Task { future: Some(future), woken });
        Started { number: self.tasks.len() - 1, result }
    }

    /// Everybody goes on until all have ended or wait. Whether anybody did anything.
    pub fn settle(&mut self) -> bool {
        let mut moved = false;
        for _ in 0..1_000_000 {
            let Some(number) = self.tasks.iter().position(Task::can_go_on) else { return moved };
            self.tasks[number].poll();
            moved = true;
        }
        panic!("the tasks wake each other for ever");
    }

    /// One task goes on until it waits again.
    pub fn step<T>(&mut self, started: &Started<T>) {
        self.tasks[started.number].poll();
    }

    /// The client is gone: its future is dropped where it stands.
    pub fn stop<T>(&mut self, started: &Started<T>) {
        self.tasks[started.number].future = None;
    }
}

impl<T> Started<T> {
    pub fn is_done(&self) -> bool {
        self.result.lock().unwrap().is_some()
    }

    /// What the task gave in the end, once; None while it is under way.
    pub fn result(&self) -> Option<T> {
        self.result.lock().unwrap().take()
    }

    /// The same, of a task that must have ended by now.
    pub fn done(&self) -> T {
        self.result().expect("the task is still waiting")
    }
}

impl Task {
    fn can_go_on(&self) -> bool {
        self.future.is_some() && self.woken.0.load(Ordering::SeqCst)
    }

    fn poll(&mut self) {
        let Some(future) = &mut self.future else { return };
        self.woken.0.store(false, Ordering::SeqCst);
        let waker = Waker::from(self.woken.clone());
        if future.as_mut().poll(&mut Context::from_waker(&waker)).is_ready() {
            self.future = None;
        }
    }
}

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// Runs one future that need not wait for anybody else.
pub fn run<T: 'static>(future: impl Future<Output = T> + 'static) -> T {
    let mut tasks = Tasks::default();
    let started = tasks.start(future);
    tasks.settle();
    started.done()
}
