//! `Session`: several streams, and commands of the client, over one call.

mod command;
mod streams;

use std::{
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
    time::Duration,
};

use actix_web::rt::spawn;
use bytes::{Bytes, BytesMut};
use tokio::{
    task::JoinHandle,
    time::{Instant, Sleep, sleep_until},
};

pub(super) use command::LONG_REQUEST_BYTES;

use self::{
    command::{CommandResult, Effect, answer, renewed},
    streams::{Step, Streams},
};
use super::{
    answer::{Ended, Messages},
    message::{Incoming, encoded},
    proto::stream_events::{
        Command, End, KeepAlive, Ok as Done, Record, record::Record as RecordKind,
    },
    status::{Code, Status},
    subscribe,
};
use crate::{
    limits::budget::Claim,
    net::stall::is_dropping_stalled,
    outlet::client::{Client, SharedClient, refusal::Refusal, timer::ConnectionTimer},
    stream::{
        drive::body::BLOCKED_FROM, limits::StreamPermit, open::OpenError,
        session::Session as StreamSession,
    },
};

/// Largest command, in bytes.
pub(super) const COMMAND_MAX_BYTES: usize = 64 * 1024;
/// Limit of the streams of a call.
const STREAMS_MAX: usize = 32;
/// Limit of the commands of a client within a second.
const COMMANDS_PER_SECOND: u32 = 100;
/// Number of bytes of answers above which no command is read.
const ANSWERS_MAX_BYTES: usize = 16 * 1024;
/// Bytes of a client that need no claim on memory. Few clients send more at once.
const UNCLAIMED_BYTES: usize = 4 * 1024;
/// Number of steps after which other tasks of the thread run.
const STEPS_PER_TURN: usize = 32;

/// Session of one call: its streams, and the commands of the client.
pub(super) struct Session {
    client: SharedClient,
    incoming: Incoming,
    /// Claim on the memory for what clients have sent.
    claim: Claim,
    /// Running command. It is a separate task, because it can hold a turn of the worker while the
    /// client reads nothing and the session is not polled.
    running: Option<JoinHandle<CommandResult>>,
    /// True if the client sends no more commands.
    is_half_closed: bool,
    /// Start of the current second, and the number of commands within it.
    rate: (Instant, u32),
    answers: BytesMut,
    streams: Streams,
    /// Timer of a session without streams. `None` if there is a stream.
    idle_timer: Option<ConnectionTimer>,
    /// Permit of a session without streams: such a session counts as a stream of its address.
    idle_permit: Option<Box<StreamPermit>>,
    /// Status to send after the answers.
    end: Option<Status>,
    timer: Pin<Box<Sleep>>,
    /// Time at which the session last returned records. `None` after the next poll.
    returned_at: Option<Instant>,
}

impl Session {
    /// Creates a session without streams.
    ///
    /// # Errors
    /// Fails when the address has too many streams.
    pub(super) fn new(client: SharedClient, incoming: Incoming) -> Result<Self, Status> {
        let now = Instant::now();
        Ok(Self {
            idle_permit: idle_permit(&client)?,
            incoming,
            claim: client.context.socket_input.claim(),
            running: None,
            is_half_closed: false,
            rate: (now, 0),
            answers: BytesMut::new(),
            streams: Streams::default(),
            idle_timer: Some(ConnectionTimer::new(&client.context, now)),
            end: None,
            timer: Box::pin(sleep_until(now)),
            returned_at: None,
            client,
        })
    }

    /// Runs the commands of the client, one after another. Between the parts of a record there is
    /// no place for an answer, and no stream may be closed.
    fn poll_commands(&mut self, cx: &mut Context<'_>) -> Result<(), Status> {
        while self.end.is_none()
            && self.answers.len() < ANSWERS_MAX_BYTES
            && !self.streams.is_within_record()
        {
            if let Some(running) = &mut self.running {
                let Poll::Ready(outcome) = Pin::new(running).poll(cx) else { return Ok(()) };
                self.running = None;
                let Ok(CommandResult { reference, result }) = outcome else {
                    return Err(Status::new(Code::Internal, "a command failed"));
                };
                let done = result.and_then(|effect| self.carry_out(effect));
                self.answers.extend_from_slice(&answer(reference, done));
                continue;
            }
            if self.is_half_closed {
                return Ok(());
            }
            let Poll::Ready(received) = self.incoming.poll::<Command>(cx) else {
                return self.claim_input();
            };
            match received.transpose()? {
                Some(command) => {
                    self.count_command()?;
                    let client = Rc::clone(&self.client);
                    self.running = Some(spawn(command::run(client, command)));
                }
                None => self.is_half_closed = true,
            }
        }
        Ok(())
    }

    /// Claims memory for what the client has sent and is not a whole command.
    fn claim_input(&mut self) -> Result<(), Status> {
        let bytes = self.incoming.len().saturating_sub(UNCLAIMED_BYTES);
        if let Some(released) = self.claim.bytes().checked_sub(bytes) {
            self.claim.shrink(released);
        } else if !self.claim.grow(bytes - self.claim.bytes()) {
            let text = "too many bytes of unfinished commands of all clients are in memory";
            return Err(Status::new(Code::Unavailable, text));
        }
        Ok(())
    }

    /// Counts a command.
    ///
    /// # Errors
    /// Fails if the client sends more than [`COMMANDS_PER_SECOND`].
    fn count_command(&mut self) -> Result<(), Status> {
        let now = Instant::now();
        let (since, count) = &mut self.rate;
        if *since + Duration::from_secs(1) <= now {
            (*since, *count) = (now, 0);
        }
        *count += 1;
        if COMMANDS_PER_SECOND < *count {
            let text = format!("a client may send {COMMANDS_PER_SECOND} commands in a second");
            return Err(Status::new(Code::ResourceExhausted, text));
        }
        Ok(())
    }

    fn carry_out(&mut self, effect: Effect) -> Result<Done, Status> {
        match effect {
            Effect::Subscribe(name, request) => {
                if self.streams.contains(&name) {
                    let text = format!("sub: {name:?} is open: unsubscribe first");
                    return Err(Status::new(Code::InvalidArgument, text));
                }
                if STREAMS_MAX <= self.streams.len() {
                    let text = format!("a session has at most {STREAMS_MAX} streams");
                    return Err(self.client.counted(Refusal::too_often(text)).into());
                }
                self.idle_permit = None;
                match subscribe::open(&self.client, request, None) {
                    Ok(session) => {
                        self.idle_timer = None;
                        self.streams.add(name, session);
                    }
                    Err(status) => {
                        self.take_idle_permit();
                        return Err(status);
                    }
                }
            }
            Effect::Unsubscribe(name) => {
                if !self.streams.remove(&name) {
                    let text = format!("sub: {name:?} is not open");
                    return Err(Status::new(Code::NotFound, text));
                }
                self.start_idle_timer();
            }
            Effect::Renew(grant) => {
                return Ok(renewed(self.client.renew(grant, self.streams.leases())?));
            }
            Effect::Answer(done) => return Ok(done),
        }
        Ok(Done::default())
    }

    /// Starts the timer of a session without streams, if there is none left.
    fn start_idle_timer(&mut self) {
        if self.streams.is_empty() {
            self.idle_timer = Some(ConnectionTimer::new(&self.client.context, Instant::now()));
            self.take_idle_permit();
        }
    }

    /// Takes the permit if the session has no streams. Ends the session if other calls of the
    /// address have taken all permits.
    fn take_idle_permit(&mut self) {
        if self.streams.is_empty() {
            match idle_permit(&self.client) {
                Ok(permit) => self.idle_permit = permit,
                Err(status) => self.end = Some(status),
            }
        }
    }

    /// Returns the next step of the streams, or of a session without them.
    fn next_step(&mut self, cx: &Context<'_>) -> Step {
        let now = Instant::now();
        if self.idle_timer.is_none() && self.streams.is_empty() {
            self.start_idle_timer();
            if self.end.is_some() {
                return Step::Yield;
            }
        }
        let Some(timer) = &mut self.idle_timer else { return self.streams.next(now, cx.waker()) };
        if self.is_half_closed && self.running.is_none() {
            self.end = Some(Status::OK);
            return Step::Yield;
        }
        let expires_ms = self.client.grant.borrow().as_ref().map(|grant| grant.expires_ms);
        match timer.next(&self.client.context, expires_ms, false, now) {
            Ok(false) => Step::WaitUntil(timer.deadline()),
            Ok(true) => {
                // HTTP/2 finds dead peers, so that records need no answer.
                timer.mark_received();
                Step::Give(of_session(RecordKind::KeepAlive(KeepAlive {})))
            }
            Err(refusal) => {
                let reason = refusal.reason.to_owned();
                let retry_ms = refusal.retry_ms.unwrap_or_default();
                self.end = Some(refusal.into());
                Step::Give(of_session(RecordKind::End(End { reason, retry_ms })))
            }
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Bytes, Ended>> {
        for _ in 0..STEPS_PER_TURN {
            self.poll_commands(cx)?;
            if !self.answers.is_empty() && !self.streams.is_within_record() {
                return Poll::Ready(Ok(std::mem::take(&mut self.answers).freeze()));
            }
            if let Some(status) = self.end.take() {
                return Poll::Ready(Err(status.into()));
            }
            match self.next_step(cx) {
                Step::Give(records) => return Poll::Ready(Ok(records)),
                Step::End(record, end) => {
                    if self.streams.is_empty() {
                        self.end = Some(Status::of_end(&end));
                    }
                    return Poll::Ready(Ok(record));
                }
                Step::WaitUntil(due) => {
                    if due != self.timer.deadline() {
                        self.timer.as_mut().reset(due);
                    }
                    ready!(self.timer.as_mut().poll(cx));
                }
                Step::Yield if self.end.is_some() => {}
                Step::Yield => break,
                Step::Cut(err) => return Poll::Ready(Err(Ended::Cut(err))),
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

/// Takes the permit of a session without streams.
///
/// # Errors
/// Fails when the address has too many streams.
fn idle_permit(client: &Client) -> Result<Option<Box<StreamPermit>>, Status> {
    let permit = client.context.limits.try_acquire(client.address, None);
    permit.map_err(|reached| client.counted(Refusal::from(OpenError::from(reached))).into())
}

/// Encodes a record that is about the whole session.
fn of_session(record: RecordKind) -> Bytes {
    encoded(&Record { sub: String::new(), record: Some(record) })
}

impl Messages for Session {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Bytes, Ended>> {
        if self.returned_at.take().is_some_and(|returned_at| BLOCKED_FROM <= returned_at.elapsed())
        {
            self.streams.mark_all(StreamSession::mark_blocked);
        }
        let polled = self.poll(cx);
        self.returned_at = polled.is_ready().then(Instant::now);
        polled
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if let Some(running) = self.running.take() {
            running.abort();
        }
        if is_dropping_stalled() {
            self.streams.mark_all(StreamSession::mark_stalled);
        }
    }
}
