//! Long work that nobody waits for, in pieces, on a thread that gets out of the way of those that serve: what a snapshot costs
//! its sender and its receiver. (Work that takes a lock which serving needs stays at its rank: whoever holds one must not be put off.)
//! Knows nothing of what the work is.

use std::io;

use tokio::sync::{mpsc, oneshot};

use crate::simulation::{self, EndedEarly};

type Job = Box<dyn FnOnce() + Send>;

/// A thread that has stepped back, and ends when this is dropped. In a simulation there is none: work is done in place.
pub struct Background(Option<mpsc::Sender<Job>>);

impl Background {
    /// # Errors
    /// The system has no thread left.
    pub fn start(name: &str) -> io::Result<Background> {
        if simulation::here() {
            return Ok(Background(None));
        }
        let (jobs, mut todo) = mpsc::channel::<Job>(1);
        let run = move || {
            while let Some(job) = todo.blocking_recv() {
                job();
            }
        };
        tenure_disk::background::start(name, run).map_err(|error| {
            io::Error::other(format!(
                "this member has no thread left for {name}: {error}; raise the limit of tasks"
            ))
        })?;
        Ok(Background(Some(jobs)))
    }

    /// Does one piece of work, after those that were given before.
    pub async fn work<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, EndedEarly> {
        let Some(jobs) = &self.0 else { return Ok(work()) };
        let (told, outcome) = oneshot::channel();
        let job = Box::new(move || drop(told.send(work())));
        jobs.send(job).await.map_err(|_| EndedEarly)?;
        outcome.await.map_err(|_| EndedEarly)
    }
}

#[cfg(test)]
mod tests {
    use super::Background;

    #[tokio::test]
    async fn pieces_are_done_in_their_order_on_one_thread_that_has_stepped_back() {
        let background = Background::start("test-behind").unwrap();
        let rank = || rustix::process::getpriority_process(None).unwrap();
        let here = rank();
        let look = move || (std::thread::current().id(), rank());
        let (first, there) = background.work(look).await.unwrap();
        assert_eq!(background.work(look).await.unwrap(), (first, there));
        assert_ne!(first, std::thread::current().id());
        assert!(there > here, "{there} is not behind {here}");
        assert_eq!(rank(), here);
    }
}
