//! Presence in a session: messages about the members of the stream's topics.

use tokio::time::Instant;

use super::{Next, Session, state::Phase};
use crate::model::control::Control;

impl Session {
    /// Returns the next message about members, if there is one.
    pub(super) fn next_of_presence(&mut self, now: Instant) -> Option<Next> {
        let Phase::Open(open) = &mut self.phase else { return None };
        let presence = open.extras.as_mut()?.presence.as_mut()?.next_message()?;
        self.written_at = now;
        Some(Next::Say(Control::Presence(Box::new(presence))))
    }
}
