//! Wakers of a session: what continues a stream that waits.

use std::task::Waker;

use super::{Session, state::Phase};

impl Session {
    /// Registers `waker`, which is woken when there is more to do. Must be called after
    /// [`Next::WaitUntil`](super::Next::WaitUntil), on the same thread and before other code runs
    /// there.
    pub(crate) fn wait(&self, waker: &Waker) {
        match &self.phase {
            Phase::WaitingForLog(_, answer) => answer.register(waker),
            Phase::Open(open) => {
                open.subscriber.wait(waker);
                if let Some(lease) = open.lease() {
                    lease.register(waker);
                }
                if let Some(presence) = open.presence() {
                    presence.register(waker);
                }
            }
            Phase::Finished | Phase::FellBehind => {}
        }
    }

    /// Returns true if [`Session::wait`] needs a working waker: in addition to new events, a
    /// renewal, a change of members or an answer of the log continues the stream.
    pub(crate) fn needs_waker(&self) -> bool {
        match &self.phase {
            Phase::WaitingForLog(..) => true,
            Phase::Open(open) => open.lease().is_some() || open.presence().is_some(),
            Phase::Finished | Phase::FellBehind => false,
        }
    }
}
