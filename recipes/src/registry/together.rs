//! Several futures at once, a bounded number of them, without a runtime: whoever waits for the first need not keep the second waiting.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::Poll;

/// Runs all, at most `most` at a time, and gives their results in order.
pub async fn together<F: Future + Send>(futures: impl IntoIterator<Item = F>, most: usize) -> Vec<F::Output>
where
    F::Output: Unpin + Send,
{
    let mut waiting = futures.into_iter().enumerate();
    let mut under_way: Vec<(usize, Pin<Box<F>>)> = Vec::with_capacity(most);
    let mut results: Vec<(usize, F::Output)> = Vec::new();
    loop {
        let room = most.saturating_sub(under_way.len());
        under_way.extend(waiting.by_ref().take(room).map(|(number, future)| (number, Box::pin(future))));
        if under_way.is_empty() {
            break;
        }
        let done = poll_fn(|context| {
            let mut done = Vec::new();
            under_way.retain_mut(|(number, future)| match future.as_mut().poll(context) {
                Poll::Ready(result) => {
                    done.push((*number, result));
                    false
                }
                Poll::Pending => true,
            });
            if done.is_empty() { Poll::Pending } else { Poll::Ready(done) }
        });
        results.extend(done.await);
    }
    results.sort_unstable_by_key(|(number, _)| *number);
    results.into_iter().map(|(_, result)| result).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::{Context, Waker};

    use super::*;

    /// Ends when it is polled for the second time.
    async fn in_two(number: usize, under_way: &AtomicUsize) -> usize {
        assert!(under_way.fetch_add(1, Ordering::Relaxed) < 3);
        let mut polled = false;
        poll_fn(|context| {
            context.waker().wake_by_ref();
            let result = if polled { Poll::Ready(()) } else { Poll::Pending };
            polled = true;
            result
        })
        .await;
        under_way.fetch_sub(1, Ordering::Relaxed);
        number
    }

    #[test]
    fn all_run_few_at_a_time_and_answer_in_order() {
        let count = AtomicUsize::new(0);
        let mut all = Box::pin(together((0..10).map(|number| in_two(number, &count)), 3));
        let mut context = Context::from_waker(Waker::noop());
        let results = loop {
            if let Poll::Ready(results) = all.as_mut().poll(&mut context) {
                break results;
            }
        };
        assert_eq!(results, (0..10).collect::<Vec<_>>());
    }
}
