//! Commands of a connection: what has to be done at once, and the answers.

use serde_json::{Map, Value, json};
use tokio::time::Instant;

use super::{ANSWERS_MAX_BYTES, ClientClose, Connection, STREAMS_MAX, State};
use crate::{
    auth::grant::Grant,
    outlet::{
        client::refusal::{CloseCode, Refusal},
        websocket::{
            effect::{CommandResult, Effect},
            encode::format_of,
            record,
        },
    },
};

impl Connection {
    /// Takes the next command, if it can be carried out now.
    pub(crate) fn take_command(&mut self, now: Instant) -> Option<String> {
        let has_room = self.answers.len() < ANSWERS_MAX_BYTES;
        if self.stream_within_event.is_some() || self.state != State::Open || !has_room {
            return None;
        }
        let command = self.commands.pop_front();
        self.is_running = command.is_some();
        if self.is_running {
            self.read_frames(now);
            self.claim_input(now);
        } else if let Some(ClientClose(code)) = self.close_after.take() {
            self.close(code, "", now);
            self.state = State::Closed;
        }
        command
    }

    /// Finishes a command, and answers it.
    pub(crate) fn finish(&mut self, finished: CommandResult, now: Instant) {
        let CommandResult { reference, result } = finished;
        self.is_running = false;
        if self.state != State::Open {
            return;
        }
        let done = result.and_then(|effect| self.carry_out(effect, now));
        let reference = reference.as_ref();
        self.answers.extend_from_slice(&match done {
            Ok(fields) => record::done(reference, &fields),
            Err(refusal) => record::failed(reference, &refusal),
        });
    }

    fn carry_out(&mut self, effect: Effect, now: Instant) -> Result<Map<String, Value>, Refusal> {
        match effect {
            Effect::Subscribe(name, parameters) => {
                if self.position(&name).is_some() {
                    let text = format!("sub: {name:?} is open: unsubscribe first");
                    return Err(Refusal::new(CloseCode::BadRequest, text));
                }
                if STREAMS_MAX <= self.streams.len() {
                    let text = format!("a connection has at most {STREAMS_MAX} streams");
                    return Err(self.client.counted(Refusal::too_often(text)));
                }
                let session = self.client.open(*parameters, None, format_of)?;
                self.add(name, session);
            }
            Effect::Unsubscribe(name) => {
                let Some(at) = self.position(&name) else {
                    let text = format!("sub: {name:?} is not open");
                    return Err(Refusal::new(CloseCode::NotFound, text));
                };
                drop(self.remove(at, now));
            }
            Effect::Renew(grant) => return self.renew(*grant),
            Effect::Answer(fields) => return Ok(fields),
        }
        Ok(Map::new())
    }

    fn position(&self, name: &str) -> Option<usize> {
        self.streams.iter().position(|stream| stream.name == name)
    }

    /// Extends the leases of all streams.
    fn renew(&mut self, grant: Grant) -> Result<Map<String, Value>, Refusal> {
        let leases = self.streams.iter().filter_map(|stream| stream.session.lease());
        let left = self.client.renew(grant, leases)?;
        Ok(Map::from_iter([("expires_in".to_owned(), json!(left.as_secs()))]))
    }
}
