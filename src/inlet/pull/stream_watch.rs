//! Watch over a stream that gives no message. The library opens streams again by itself and
//! reports nothing, so the calls that it makes show whether it succeeds.

use std::time::Duration;

use tokio::time::Instant;

/// Silence after which a stream counts as open: Pub/Sub refuses a stream sooner, and sends nothing
/// on an open stream until there is a message.
const OPEN_AFTER: Duration = Duration::from_secs(2);
/// Silence after which a stream is opened anew on another connection. The library does not notice a
/// peer that is frozen, or a connection whose packets are lost: it has no HTTP/2 pings, and hides
/// Pub/Sub's answers to its keep-alive requests.
const SILENCE_MAX: Duration = Duration::from_secs(60);
/// Time for which the library may still send acks after the last message is stored.
const ACKS_SENT_AFTER: Duration = Duration::from_secs(1);
/// Time within which an open stream is opened again at most once. Pub/Sub closes each stream at
/// some time, but less often.
const REOPEN_INTERVAL: Duration = Duration::from_secs(5);

/// State of a stream.
#[derive(Debug, Clone, Copy)]
pub(super) struct StreamState {
    /// True if the stream is known to be open.
    pub(super) is_open: bool,
    /// True if the gateway asks for a message.
    pub(super) is_asking: bool,
    /// True if no message is being stored, and no ack is awaited.
    pub(super) is_idle: bool,
    /// Calls of Pub/Sub that the library has made for the stream: those that open it, and those of
    /// leases and acks.
    pub(super) calls: usize,
}

/// Conclusion from the state of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Finding {
    Unchanged,
    /// The stream is open.
    Open,
    /// The library tries in vain to open the stream.
    Unavailable,
    /// Nothing was received for [`SILENCE_MAX`].
    Silent,
}

/// Watch over the time between two messages of a stream. The caller looks twice a second.
#[derive(Debug)]
pub(super) struct StreamWatch {
    /// Time since which the gateway has asked for a message. `None` while it does not ask.
    asking_since: Option<Instant>,
    /// Time since which no message is being stored and no ack is awaited. `None` otherwise.
    idle_since: Option<Instant>,
    /// Calls at the last look.
    calls: usize,
    /// Time at which the library last opened the stream again.
    reopened: Option<Instant>,
}

impl StreamWatch {
    /// Makes a watch that begins now.
    pub(super) fn new(now: Instant) -> Self {
        Self { asking_since: Some(now), idle_since: None, calls: 0, reopened: None }
    }

    /// Looks at the stream.
    pub(super) fn look(&mut self, now: Instant, state: StreamState) -> Finding {
        let silence = time_since(&mut self.asking_since, state.is_asking, now);
        let idle_time = time_since(&mut self.idle_since, state.is_idle, now);
        let new_calls = state.calls.saturating_sub(self.calls);
        self.calls = state.calls;
        if !state.is_open {
            return match state.calls {
                1 if OPEN_AFTER <= silence => Finding::Open,
                0 | 1 => Finding::Unchanged,
                _ => Finding::Unavailable,
            };
        }
        // Without messages, the library calls Pub/Sub only to open the stream again.
        if ACKS_SENT_AFTER <= idle_time && 0 < new_calls {
            let last = self.reopened.replace(now);
            if 1 < new_calls || last.is_some_and(|last| now - last < REOPEN_INTERVAL) {
                return Finding::Unavailable;
            }
        }
        if SILENCE_MAX <= silence { Finding::Silent } else { Finding::Unchanged }
    }
}

/// Returns for how long a condition has been true. `since` keeps the time at which it became true.
fn time_since(since: &mut Option<Instant>, is_true: bool, now: Instant) -> Duration {
    *since = since.or(Some(now)).filter(|_| is_true);
    since.map_or(Duration::ZERO, |since| now - since)
}

#[cfg(test)]
mod tests {
    use super::*;

    const IDLE: StreamState =
        StreamState { is_open: true, is_asking: true, is_idle: true, calls: 1 };

    /// Watch that is looked at every half second.
    struct Test {
        watch: StreamWatch,
        now: Instant,
    }

    impl Test {
        fn new() -> Self {
            let now = Instant::now();
            Self { watch: StreamWatch::new(now), now }
        }

        /// Looks for `seconds`, and returns the last finding. All earlier ones are `Unchanged`.
        fn look_for(&mut self, seconds: u32, state: StreamState) -> Finding {
            for n in 1..=2 * seconds {
                self.now += Duration::from_millis(500);
                let finding = self.watch.look(self.now, state);
                if finding != Finding::Unchanged {
                    assert_eq!(n, 2 * seconds, "{finding:?} came early");
                    return finding;
                }
            }
            Finding::Unchanged
        }
    }

    #[test]
    fn a_stream_is_open_if_it_is_not_refused_within_2_s() {
        let state = StreamState { is_open: false, ..IDLE };
        assert_eq!(Test::new().look_for(2, state), Finding::Open);
        let not_called = StreamState { calls: 0, ..state };
        assert_eq!(Test::new().look_for(50, not_called), Finding::Unchanged);
        let mut test = Test::new();
        assert_eq!(test.look_for(1, state), Finding::Unchanged);
        test.now += Duration::from_millis(1);
        let called_again = StreamState { calls: 2, ..state };
        assert_eq!(test.watch.look(test.now, called_again), Finding::Unavailable);
    }

    #[test]
    fn acks_are_no_attempts_to_open_the_stream() {
        let mut test = Test::new();
        let storing = StreamState { is_idle: false, ..IDLE };
        for calls in 1..20 {
            let state = StreamState { calls: 10 * calls, ..storing };
            assert_eq!(test.look_for(1, state), Finding::Unchanged);
        }
        assert_eq!(test.look_for(1, StreamState { calls: 200, ..IDLE }), Finding::Unchanged);
        assert_eq!(test.look_for(5, StreamState { calls: 200, ..IDLE }), Finding::Unchanged);
    }

    #[test]
    fn an_idle_stream_may_be_opened_again_now_and_then() {
        let mut test = Test::new();
        for calls in 1..10 {
            assert_eq!(test.look_for(5, StreamState { calls, ..IDLE }), Finding::Unchanged);
        }
        let state = StreamState { calls: 10, ..IDLE };
        assert_eq!(test.look_for(4, state), Finding::Unchanged);
        test.now += Duration::from_millis(500);
        let state = StreamState { calls: 11, ..IDLE };
        assert_eq!(test.watch.look(test.now, state), Finding::Unavailable);
    }

    #[test]
    fn an_idle_stream_is_not_opened_twice_between_two_looks() {
        let mut test = Test::new();
        assert_eq!(test.look_for(2, IDLE), Finding::Unchanged);
        test.now += Duration::from_millis(500);
        let state = StreamState { calls: 3, ..IDLE };
        assert_eq!(test.watch.look(test.now, state), Finding::Unavailable);
    }

    #[test]
    fn silence_counts_while_the_gateway_asks() {
        assert_eq!(Test::new().look_for(60, IDLE), Finding::Silent);
        let mut test = Test::new();
        assert_eq!(test.look_for(59, IDLE), Finding::Unchanged);
        let full = StreamState { is_asking: false, is_idle: false, ..IDLE };
        assert_eq!(test.look_for(600, full), Finding::Unchanged);
        assert_eq!(test.look_for(60, IDLE), Finding::Unchanged);
        test.now += Duration::from_millis(500);
        assert_eq!(test.watch.look(test.now, IDLE), Finding::Silent);
    }
}
