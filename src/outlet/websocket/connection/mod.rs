//! Connection of a WebSocket without I/O: received bytes go in, and bytes to write come out.

mod commands;
pub(super) mod idle;
mod receiving;

use std::{collections::VecDeque, rc::Rc, task::Waker, time::Duration};

use bytes::{Bytes, BytesMut};
use tokio::time::Instant;

use crate::outlet::{
    client::{
        SharedClient,
        refusal::{CloseCode, Refusal},
        timer::ConnectionTimer,
    },
    websocket::{
        frame::{Input, insert_members, write_close},
        record,
    },
};
use crate::{
    limits::budget::Claim,
    model::control::Control,
    net::limiter::ConnectionPermit,
    outlet::format,
    stream::session::{Next, Session},
};

/// Limit of the streams of a connection.
const STREAMS_MAX: usize = 32;
/// Limit of the messages that were received and not carried out: behind them nothing is read.
const COMMANDS_MAX: usize = 8;
/// Limit of the messages and control frames of a client within a second.
const MESSAGES_PER_SECOND: u32 = 100;
/// Number of bytes of answers above which nothing is read.
const ANSWERS_MAX_BYTES: usize = 16 * 1024;
/// Bytes of a client that need no claim on memory. Few clients send more at once.
const UNCLAIMED_BYTES: usize = 4 * 1024;
/// Time for which the close frame of the client is waited for.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// One connection: its streams, and what is to be written.
#[derive(Debug)]
pub(super) struct Connection {
    client: SharedClient,
    streams: Vec<Stream>,
    /// Index of the stream that is asked first.
    first: usize,
    /// Index of the stream of which a part of a large event was given: its rest comes next.
    stream_within_event: Option<usize>,
    input: Input,
    /// Claim on the memory for what clients have sent.
    claim: Claim,
    /// Control frames. They may go between the frames of a message.
    controls: BytesMut,
    /// Answers to commands. They go between messages.
    answers: BytesMut,
    /// Commands that are not carried out.
    commands: VecDeque<String>,
    /// True while a command is carried out.
    is_running: bool,
    /// Code of the client's close frame, which waits for the commands before it.
    close_after: Option<ClientClose>,
    state: State,
    /// Begin of the current second, and the number of messages and control frames within it.
    rate: (Instant, u32),
    /// Timer of a connection without streams. `None` if there is a stream.
    timer: Option<ConnectionTimer>,
    permit: Option<ConnectionPermit>,
}

/// Stream of a connection.
#[derive(Debug)]
struct Stream {
    name: String,
    session: Session,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Open,
    /// The gateway has sent its close frame, and waits for that of the client until this time.
    Closing(Instant),
    /// Nothing more is received.
    Closed,
}

/// Next step of the driver.
#[derive(Debug)]
pub(super) enum Step {
    Write(Bytes),
    /// Waits for the client, for the wakers of the streams, and until this time at the latest.
    WaitUntil(Instant),
    /// Asks again after other tasks of the thread have run.
    Yield,
    /// Closes the socket.
    Close,
}

/// Code of a close frame of the client, if it has one.
#[derive(Debug)]
struct ClientClose(Option<u16>);

impl Connection {
    /// Creates a connection without streams.
    pub(super) fn new(client: SharedClient, now: Instant) -> Self {
        let timer = Some(ConnectionTimer::new(&client.context, now));
        let claim = client.context.socket_input.claim();
        Self {
            client,
            streams: Vec::new(),
            first: 0,
            stream_within_event: None,
            input: Input::default(),
            claim,
            controls: BytesMut::new(),
            answers: BytesMut::new(),
            commands: VecDeque::new(),
            is_running: false,
            close_after: None,
            state: State::Open,
            rate: (now, 0),
            timer,
            permit: None,
        }
    }

    /// Sets the permit of the connection.
    pub(super) fn set_permit(&mut self, permit: ConnectionPermit) {
        if !self.streams.is_empty() {
            permit.begin_stream();
        }
        self.permit = Some(permit);
    }

    /// Adds a stream. The name of that of the query is empty.
    pub(super) fn add(&mut self, name: String, session: Session) {
        if self.streams.is_empty()
            && let Some(permit) = &self.permit
        {
            permit.begin_stream();
        }
        self.timer = None;
        self.streams.push(Stream { name, session });
    }

    /// Removes a stream.
    fn remove(&mut self, at: usize, now: Instant) -> Stream {
        let stream = self.streams.remove(at);
        if self.streams.is_empty() {
            self.timer = Some(ConnectionTimer::new(&self.client.context, now));
            if let Some(permit) = &self.permit {
                permit.end_stream();
            }
        }
        stream
    }

    /// Refuses the connection: the record `end`, and a close frame.
    pub(super) fn refuse(&mut self, refusal: &Refusal, now: Instant) {
        // A record cannot go between the frames of an event.
        if self.stream_within_event.is_none() {
            self.answers.extend_from_slice(&record::refused(refusal));
        }
        self.fail(refusal.code, refusal.reason, now);
    }

    /// Closes the connection of a client that is too slow for a large event. There is no record
    /// `end`: the event may be incomplete, and a record cannot go between its frames.
    pub(super) fn end_behind(&mut self, now: Instant) {
        self.fail(CloseCode::TryAgain, "fell-behind", now);
    }

    /// Closes the connection, and counts that.
    fn fail(&mut self, code: CloseCode, reason: &str, now: Instant) {
        let number = code.number();
        let closed = &self.client.context.metrics.websockets_closed;
        closed.with_label_values(&[itoa::Buffer::new().format(number)]).inc();
        self.close(Some(number), reason, now);
    }

    /// Ends all streams, and adds a close frame behind what can still be written.
    fn close(&mut self, code: Option<u16>, reason: &str, now: Instant) {
        if self.stream_within_event.take().is_none() {
            self.controls.extend_from_slice(&self.answers);
        }
        write_close(&mut self.controls, code, reason);
        self.end_all(now);
    }

    /// Ends all streams, and waits for the close frame of the client.
    pub(super) fn end_all(&mut self, now: Instant) {
        self.stream_within_event = None;
        self.answers = BytesMut::new();
        self.commands.clear();
        self.streams.clear();
        self.timer = None;
        // The client may have sent its close frame already.
        self.state = match self.close_after.take() {
            Some(_) => State::Closed,
            None => State::Closing(now + CLOSE_TIMEOUT),
        };
    }

    /// Records that the socket did not take all bytes.
    pub(super) fn mark_blocked(&mut self) {
        self.streams.iter_mut().for_each(|stream| stream.session.mark_blocked());
    }

    /// Records that the client took nothing for too long.
    pub(super) fn mark_stalled(&mut self) {
        self.streams.iter_mut().for_each(|stream| stream.session.mark_stalled());
    }

    /// Returns the next step. A step that waits calls `waker` when a stream has more to write.
    pub(super) fn next(&mut self, now: Instant, waker: &Waker) -> Step {
        if !self.controls.is_empty() {
            return Step::Write(std::mem::take(&mut self.controls).freeze());
        }
        match self.state {
            State::Closed => return Step::Close,
            State::Closing(until) if until <= now => return Step::Close,
            State::Closing(until) => return Step::WaitUntil(until),
            State::Open => {}
        }
        if let Some(at) = self.stream_within_event {
            return self.next_of(at, now, waker);
        }
        if !self.answers.is_empty() {
            return Step::Write(std::mem::take(&mut self.answers).freeze());
        }
        if self.streams.is_empty() {
            return self.next_without_streams(now);
        }
        self.next_of_any(now, waker)
    }

    /// Asks each stream in turn.
    fn next_of_any(&mut self, now: Instant, waker: &Waker) -> Step {
        let (count, first) = (self.streams.len(), self.first);
        let (mut deadline, mut yields) = (None, false);
        for at in (first..first + count).map(|at| at % count) {
            match self.next_of(at, now, waker) {
                Step::WaitUntil(due) => {
                    deadline = Some(deadline.map_or(due, |before: Instant| before.min(due)));
                }
                Step::Yield => yields = true,
                step => {
                    self.first = at + 1;
                    return step;
                }
            }
        }
        match deadline {
            Some(due) if !yields => Step::WaitUntil(due),
            _ => Step::Yield,
        }
    }

    fn next_of(&mut self, at: usize, now: Instant, waker: &Waker) -> Step {
        let Some(Stream { name, session }) = self.streams.get_mut(at) else {
            self.stream_within_event = None;
            return Step::Yield;
        };
        let next = session.next(now);
        if session.is_silent() {
            self.refuse(&Refusal::silent(), now);
            return Step::Yield;
        }
        match next {
            Next::Give(bytes) => {
                self.stream_within_event = session.is_within_event().then_some(at);
                Step::Write(with_name(name, bytes))
            }
            Next::Say(Control::End(end)) => {
                let name = self.remove(at, now).name;
                if !self.streams.is_empty() {
                    return Step::Write(record::control(&name, &Control::End(end)));
                }
                self.end_all(now);
                Step::Write(record::end_and_close(&name, &end))
            }
            Next::Say(control) => Step::Write(record::control(name, &control)),
            Next::WaitUntil(due) => {
                session.wait(waker);
                Step::WaitUntil(due)
            }
            Next::Yield => Step::Yield,
            Next::Finished => {
                drop(self.remove(at, now));
                Step::Yield
            }
            Next::FellBehind => {
                self.end_behind(now);
                Step::Yield
            }
        }
    }

    /// Returns the next step of a connection without streams.
    fn next_without_streams(&mut self, now: Instant) -> Step {
        let expires_ms = self.client.grant.borrow().as_ref().map(|grant| grant.expires_ms);
        let limiter = self.permit.as_ref().map(ConnectionPermit::limiter);
        let Some(timer) = &mut self.timer else { return Step::Close };
        let has_too_many_idle = limiter.is_some_and(|it| it.is_idle_expired(timer.elapsed(now)));
        match timer.next(&self.client.context, expires_ms, has_too_many_idle, now) {
            Ok(false) => Step::WaitUntil(timer.deadline()),
            Ok(true) => Step::Write(record::ping()),
            Err(refusal) => {
                self.refuse(&refusal, now);
                Step::Yield
            }
        }
    }

    /// Returns the client.
    pub(super) fn client(&self) -> SharedClient {
        Rc::clone(&self.client)
    }
}

/// Returns the events of a stream with its name.
fn with_name(name: &str, events: Bytes) -> Bytes {
    if name.is_empty() {
        return events;
    }
    let members = format!("\"sub\":{},", format::control::json(&name));
    insert_members(&events, members.as_bytes())
}

#[cfg(test)]
mod tests;
