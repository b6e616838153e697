//! Idle connections, which need no task: only a few fields are kept.

use tokio::time::Instant;

use super::{Connection, State, Stream};
use crate::{
    net::limiter::ConnectionPermit, outlet::client::SharedClient, stream::session::Session,
};

/// State that is kept of an idle connection. It is small, because many connections are idle.
#[derive(Debug)]
pub(crate) struct Parked {
    client: SharedClient,
    rate: (Instant, u32),
}

impl Parked {
    /// Continues with the connection and its stream.
    pub(crate) fn resume(
        self,
        session: Session,
        permit: ConnectionPermit,
        now: Instant,
    ) -> Connection {
        let mut connection = Connection::new(self.client, now);
        (connection.rate, connection.permit) = (self.rate, Some(permit));
        if session.has_fallen_behind() {
            connection.end_behind(now);
        } else if session.is_finished() {
            // Its last message was the close frame.
            connection.end_all(now);
        } else {
            connection.stream_within_event = session.is_within_event().then_some(0);
            connection.timer = None;
            connection.streams.push(Stream { name: String::new(), session });
        }
        connection
    }
}

impl Connection {
    /// Returns true if the connection has only the stream of its query, and waits for its events.
    pub(crate) fn is_idle(&self) -> bool {
        let [only] = &*self.streams else { return false };
        only.name.is_empty()
            && !only.session.is_silent()
            && self.state == State::Open
            && self.stream_within_event.is_none()
            && self.permit.is_some()
            && self.controls.is_empty()
            && self.answers.is_empty()
            && self.commands.is_empty()
            && self.close_after.is_none()
            && self.input.is_empty()
    }

    /// Takes an idle connection apart: what remains of it, its stream, and its permit.
    pub(crate) fn park(mut self) -> Option<(Parked, Session, ConnectionPermit)> {
        let session = self.streams.pop()?.session;
        let parked = Parked { client: self.client, rate: self.rate };
        Some((parked, session, self.permit?))
    }
}
