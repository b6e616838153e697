//! Newest id of the log, requested once for all concurrent callers.

use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::Mutex;

use crate::model::event_id::EventId;

/// Coalesces concurrent requests for the newest id: callers that wait at the same time share one
/// request to Redis.
#[derive(Debug, Default)]
pub(crate) struct NewestId {
    /// Number of requests that were begun.
    requests: AtomicU64,
    last: Mutex<Answer>,
}

#[derive(Debug, Default)]
struct Answer {
    /// Number of the request.
    request: u64,
    /// Newest id. `None` if the request failed.
    newest: Option<EventId>,
}

impl NewestId {
    /// Returns the answer to a request that began after this call. Awaits `request` if no other
    /// caller sends such a request.
    pub(crate) async fn get(
        &self,
        request: impl Future<Output = Option<EventId>>,
    ) -> Option<EventId> {
        let begun_before = self.requests.load(Ordering::SeqCst);
        let mut last = self.last.lock().await;
        // The answer to a request that began before this call may be older than the caller expects.
        if last.request <= begun_before {
            let number = self.requests.fetch_add(1, Ordering::SeqCst) + 1;
            // `last` is set together with its answer: this future can be dropped while it waits.
            let newest = request.await;
            *last = Answer { request: number, newest };
        }
        last.newest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn concurrent_callers_share_a_request() {
        let newest = NewestId::default();
        let sent = AtomicU64::new(0);
        let request = || async {
            tokio::task::yield_now().await;
            let number = sent.fetch_add(1, Ordering::SeqCst) + 1;
            Some(EventId { time_ms: number, sequence: 0 })
        };
        let get = || newest.get(request());
        let (first, second, third) = tokio::join!(get(), get(), get());
        // The second caller came while the first request was under way, so it needs its own; the
        // third shares that one.
        assert_eq!([first, second, third].map(|id| id.unwrap().time_ms), [1, 2, 2]);
        assert_eq!(get().await.unwrap().time_ms, 3);
    }
}
