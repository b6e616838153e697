//! Receiving: what becomes of the bytes of a client.

use std::time::Duration;

use tokio::time::Instant;

use super::{
    ANSWERS_MAX_BYTES, COMMANDS_MAX, ClientClose, Connection, MESSAGES_PER_SECOND, State,
    UNCLAIMED_BYTES,
};
use crate::{
    model::control::EndReason,
    outlet::{
        client::{refusal::Refusal, timer::ConnectionTimer},
        websocket::frame::{Input, Received, write_pong},
    },
};

impl Connection {
    /// Adds received bytes, and handles the messages and control frames in them.
    pub(crate) fn receive(&mut self, bytes: &[u8], now: Instant) {
        if self.state == State::Closed {
            return;
        }
        self.timer.iter_mut().for_each(ConnectionTimer::mark_received);
        self.streams.iter_mut().for_each(|stream| stream.session.mark_received());
        self.input.receive(bytes);
        self.read_frames(now);
        self.claim_input(now);
    }

    /// Claims memory for what the client has sent and the gateway has not carried out. Refuses the
    /// client if all connections together hold too much.
    pub(super) fn claim_input(&mut self, now: Instant) {
        let commands: usize = self.commands.iter().map(String::len).sum();
        let bytes = (self.input.len() + commands).saturating_sub(UNCLAIMED_BYTES);
        if let Some(released) = self.claim.bytes().checked_sub(bytes) {
            self.claim.shrink(released);
        } else if !self.claim.grow(bytes - self.claim.bytes()) && self.state == State::Open {
            self.input = Input::default();
            let text = "too many bytes of unfinished commands of all clients are in memory";
            self.refuse(&Refusal::later(EndReason::Busy, text), now);
        }
    }

    /// Returns true if more bytes may be received. After the client's close frame, none are: over
    /// HTTP/2, Chromium ends its direction with it, which must not cut off the answer.
    pub(crate) fn wants_input(&self) -> bool {
        if self.state == State::Closed || self.close_after.is_some() {
            return false;
        }
        let answers = self.controls.len() + self.answers.len();
        self.commands.len() < COMMANDS_MAX && answers < ANSWERS_MAX_BYTES && self.input.has_room()
    }

    pub(super) fn read_frames(&mut self, now: Instant) {
        while self.state != State::Closed
            && self.close_after.is_none()
            && self.commands.len() < COMMANDS_MAX
        {
            let received = match self.input.next() {
                Ok(Some(received)) => received,
                Ok(None) => return,
                Err(_) if self.state != State::Open => return self.state = State::Closed,
                Err(code) => {
                    self.fail(code, "", now);
                    return self.state = State::Closed;
                }
            };
            match received {
                Received::Close(code) if self.is_running || !self.commands.is_empty() => {
                    self.close_after = Some(ClientClose(code));
                }
                Received::Close(code) => {
                    if self.state == State::Open {
                        self.close(code, "", now);
                    }
                    self.state = State::Closed;
                }
                _ if self.state != State::Open => {}
                _ if !self.count_message(now) => {
                    let text = format!(
                        "a client may send {MESSAGES_PER_SECOND} messages and control frames in a \
                         second"
                    );
                    self.refuse(&Refusal::too_often(text), now);
                }
                Received::Ping(payload) => write_pong(&mut self.controls, &payload),
                Received::Pong => {}
                Received::Text(text) => self.commands.push_back(text),
            }
        }
    }

    /// Counts a message or control frame. Returns false beyond the limit of a second.
    fn count_message(&mut self, now: Instant) -> bool {
        let (since, count) = &mut self.rate;
        if *since + Duration::from_secs(1) <= now {
            (*since, *count) = (now, 0);
        }
        *count += 1;
        *count <= MESSAGES_PER_SECOND
    }
}
