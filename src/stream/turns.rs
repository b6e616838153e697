//! Turns: requests that take a worker a long time run one after the other, so that other work runs
//! in between.

use tokio::{
    sync::{Semaphore, SemaphorePermit},
    task::yield_now,
};

/// Turns of one worker: one at a time.
///
/// A worker takes a large part of a millisecond to read or subscribe to a thousand topics. If a
/// thousand readers send such requests at once, they run one after the other, and the other work of
/// the worker runs in between.
#[derive(Debug)]
pub(crate) struct Turns(Semaphore);

/// Turn of one request. It must be dropped before the request waits for something else.
pub(crate) type Turn<'a> = SemaphorePermit<'a>;

impl Default for Turns {
    fn default() -> Self {
        Self(Semaphore::new(1))
    }
}

impl Turns {
    /// Waits for a turn if `is_long`: until earlier long requests have had their turns, and other
    /// work of the worker has run. Returns `None` at once for a short request.
    pub(crate) async fn take(&self, is_long: bool) -> Option<Turn<'_>> {
        if !is_long {
            return None;
        }
        let turn = self.0.acquire().await.ok();
        yield_now().await;
        turn
    }
}

#[cfg(test)]
mod tests {
    use std::{cell::Cell, rc::Rc};

    use tokio::task::{LocalSet, spawn_local};

    use super::*;

    /// Returns the number of long requests that were completed before a short one.
    async fn through_before(are_long: bool) -> usize {
        let (turns, through) = (Rc::new(Turns::default()), Rc::new(Cell::new(0)));
        let request = |is_long| {
            let (turns, through) = (Rc::clone(&turns), Rc::clone(&through));
            spawn_local(async move {
                let _turn = turns.take(is_long).await;
                through.replace(through.get() + 1)
            })
        };
        let long: Vec<_> = (0..100).map(|_| request(are_long)).collect();
        let before = request(false).await.unwrap();
        for request in long {
            request.await.unwrap();
        }
        assert_eq!(through.get(), 101, "no request waits for ever");
        before
    }

    #[tokio::test]
    async fn short_requests_run_between_long_requests() {
        LocalSet::new()
            .run_until(async {
                assert!(through_before(true).await <= 1);
                assert_eq!(through_before(false).await, 100);
            })
            .await;
    }
}
