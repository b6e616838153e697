//! Turns for requests that take a worker long, so that others come in between.

use tokio::{
    sync::{Semaphore, SemaphorePermit},
    task::yield_now,
};

/// The turns of one worker: one at a time.
///
/// It takes a worker a good part of a millisecond to read or subscribe to a thousand topics. If a
/// thousand readers ask for as many at once, what they ask for is done one after the other, and
/// whatever else the worker has to do comes in between.
#[derive(Debug)]
pub struct Turns(Semaphore);

/// A turn ends when this is dropped. It has to, before anybody else is asked for something.
pub type Turn<'a> = SemaphorePermit<'a>;

impl Default for Turns {
    fn default() -> Self {
        Self(Semaphore::new(1))
    }
}

impl Turns {
    /// Waits for a turn if `is_long`: until those who came before have had theirs, and what has
    /// come from the network meanwhile has been looked at. None for what is short, and waits for
    /// nothing.
    pub async fn take(&self, is_long: bool) -> Option<Turn<'_>> {
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

    /// How many of a hundred requests were through when one came that is short.
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
        assert_eq!(through.get(), 101, "nobody waits for ever");
        before
    }

    #[tokio::test]
    async fn what_is_short_comes_between_what_is_long() {
        LocalSet::new()
            .run_until(async {
                assert!(through_before(true).await <= 1);
                assert_eq!(through_before(false).await, 100);
            })
            .await;
    }
}
