//! Session: one reader's stream, without I/O and without a format. A driver asks the session for
//! the next step and carries it out.

mod duplex;
mod ending;
mod folding;
mod membership;
mod next;
mod presence;
mod state;
#[cfg(test)]
mod tests;
mod waking;

use std::{rc::Rc, slice};

use actix_web::web;
use tokio::time::Instant;

pub(crate) use duplex::UNANSWERED_MAX;
pub(crate) use next::Next;
pub(crate) use state::MemberPosition;
use state::{Extras, First, Open, Phase};

use crate::{
    hub::{Read, ReadEvents, SampledEvent, SubscribeError},
    model::{
        control::{Control, End, EndReason},
        encode::Format,
        event_id::EventId,
        gap::Gap,
    },
    stream::{
        Newest, StreamContext,
        fold::Fold,
        large::LargeEvent,
        lease::LeaseTimer,
        limits::StreamPermit,
        log_lines::LoggedStream,
        pending::{LogAnswer, PendingStream},
    },
};

/// Stream of one reader.
#[derive(Debug)]
pub(crate) struct Session {
    context: web::Data<StreamContext>,
    phase: Phase,
    format: Format,
    /// Time of the last write.
    written_at: Instant,
    end_at: Instant,
    end_reason: EndReason,
    stalled: bool,
    /// Number of keep-alives since the reader was last heard: see [`Session::mark_received`].
    keep_alives: u8,
    /// Number of the stream in the log, and the time at which it was opened.
    logged: LoggedStream,
    /// Permit of the stream, held until the stream ends.
    permit: Option<Box<StreamPermit>>,
}

impl Session {
    /// Opens a stream that can be opened at once.
    ///
    /// # Errors
    /// Returns the limit that the stream would exceed: its reader is to retry later.
    pub(crate) fn open(pending: PendingStream, now: Instant) -> Result<Self, SubscribeError> {
        let mut session = Self::new(&pending, Phase::Finished, now);
        session.start(pending, now)?;
        Ok(session)
    }

    /// Creates a stream that has to wait for the log. `answer` says when and where it starts.
    pub(crate) fn wait_for_log(
        pending: PendingStream,
        answer: Rc<LogAnswer>,
        now: Instant,
    ) -> Self {
        let mut session = Self::new(&pending, Phase::Finished, now);
        session.phase = Phase::WaitingForLog(Box::new(pending), answer);
        session
    }

    fn new(pending: &PendingStream, phase: Phase, now: Instant) -> Self {
        Self {
            context: pending.context.clone(),
            phase,
            format: pending.key.format,
            written_at: now,
            end_at: pending.end_at,
            end_reason: EndReason::MaxAge,
            stalled: false,
            keep_alives: 0,
            logged: LoggedStream::default(),
            permit: None,
        }
    }

    fn start(&mut self, mut pending: PendingStream, now: Instant) -> Result<(), SubscribeError> {
        let (rule, slow) = (pending.fold.take(), pending.slow);
        let mut presence = pending.presence.take();
        let started = pending.subscribe(now)?;
        if let Some(presence) = &mut presence {
            presence.enter(now.into_std());
        }
        let (outlet, metrics) = (self.format.outlet(), &self.context.metrics);
        metrics.streams_opened.inc();
        metrics.streams_by_outlet.with_label_values(&[outlet]).inc();
        self.logged = self.context.log_lines.open(outlet, &started.open, now);
        self.permit = started.permit;
        let (head, at) = (started.subscriber.hub().head(), started.subscriber.position());
        let fold = rule.map(|rule| Fold::new(rule, at, head, &self.context.folds));
        self.phase = Phase::Open(Open {
            last_sent_id: started.subscriber.cursor(),
            events: 0,
            opened_at_head: head,
            subscriber: started.subscriber,
            first: Some(Box::new(First::Say(Control::Open(started.open)))),
            checkpoint_due: false,
            gap_sent: false,
            is_ending: false,
            extras: Extras::new(slow, fold, started.lease, presence),
        });
        Ok(())
    }

    /// Returns the format that the driver encodes control messages in.
    pub(crate) fn format(&self) -> Format {
        self.format
    }

    /// Returns the next step. Until that is [`Next::WaitUntil`], there is more to do at once.
    pub(crate) fn next(&mut self, now: Instant) -> Next {
        match &self.phase {
            Phase::WaitingForLog(_, answer) => {
                return match answer.take() {
                    Some(answer) => self.end_wait(answer, now),
                    None => self.next_in_silence(now),
                };
            }
            Phase::FellBehind => return Next::FellBehind,
            Phase::Open(_) | Phase::Finished => {}
        }
        self.check_drain();
        if let Phase::Open(open) = &self.phase {
            open.subscriber.stop_waiting();
        }
        if !self.read_fold() {
            return Next::Yield;
        }
        let Phase::Open(open) = &mut self.phase else { return Next::Finished };
        if let Some(first) = open.first.take() {
            return self.next_first(*first, now);
        }
        if open.is_ending {
            return self.next_end();
        }
        if let Some(next) = self.next_of_lease(now) {
            return next;
        }
        // At its maximum age a stream ends at its cursor, and its reader resumes there. In a drain,
        // the events that only this process holds are lost with it, so the stream first sends all
        // of them.
        let is_held_elsewhere =
            self.end_reason != EndReason::Draining || self.context.hub.is_copy();
        let is_over = self.end_at <= now;
        if is_over && is_held_elsewhere {
            return self.next_end();
        }
        if let Some(next) = self.next_of_presence(now) {
            return next;
        }
        if let Some(next) = self.give_folded(now) {
            return next;
        }
        let Phase::Open(open) = &mut self.phase else { return Next::Finished };
        match open.read(&self.context.folds) {
            Some(read) => self.take_read(read, now),
            None if open.has_fold() => Next::Yield,
            None if open.checkpoint_due => self.checkpoint(now),
            None if open.subscriber.has_more() => Next::Yield,
            None if is_over => self.next_end(),
            None => self.next_in_silence(now),
        }
    }

    fn end_wait(&mut self, answer: Result<crate::hub::Start, EndReason>, now: Instant) -> Next {
        let phase = std::mem::replace(&mut self.phase, Phase::Finished);
        let Phase::WaitingForLog(mut pending, _) = phase else { return Next::Finished };
        let id = pending.id;
        let started = answer.and_then(|start| {
            pending.start = start;
            self.start(*pending, now).map_err(|_| EndReason::Busy)
        });
        match started {
            Ok(()) => self.next(now),
            Err(reason) => {
                self.context.metrics.streams_refused.with_label_values(&[reason.as_str()]).inc();
                Next::Say(Control::End(End::refusal(reason, id)))
            }
        }
    }

    fn next_first(&mut self, first: First, now: Instant) -> Next {
        self.written_at = now;
        match first {
            First::Say(control) => Next::Say(control),
            First::Events(events) => self.give(events),
            First::Large(large) => self.next_slice(large),
            First::FallBehind => self.fall_behind(),
        }
    }

    /// Sends the gap first, then the events.
    pub(crate) fn take_read(&mut self, read: Read, now: Instant) -> Next {
        self.written_at = now;
        let Phase::Open(open) = &mut self.phase else { return Next::Finished };
        let Some(gap) = read.gap else {
            return match read.events {
                Some(events) => self.give(events),
                None => Next::Yield,
            };
        };
        open.first = read.events.map(|events| Box::new(First::Events(events)));
        self.say_gap(gap, now)
    }

    fn say_gap(&mut self, gap: Gap, now: Instant) -> Next {
        self.written_at = now;
        self.context.metrics.gaps.with_label_values(&[gap.reason.as_str()]).inc();
        if let Phase::Open(open) = &mut self.phase {
            (open.checkpoint_due, open.gap_sent) = (true, true);
        }
        Next::Say(Control::Gap(Box::new(gap)))
    }

    fn give(&mut self, events: ReadEvents) -> Next {
        let Phase::Open(open) = &mut self.phase else { return Next::Finished };
        open.checkpoint_due = false;
        match events {
            ReadEvents::Batch(batch) => {
                self.trace(batch.sampled.as_deref());
                self.record_delivered(batch.events, batch.newest, batch.publish_time_ms);
                Next::Give(batch.bytes)
            }
            ReadEvents::Large(event) => {
                if let Some(large) = self.context.large_events.begin(&event, self.format) {
                    self.trace(SampledEvent::among(slice::from_ref(&event)).as_deref());
                    return self.next_slice(large);
                }
                // The stream ends later: its end removes its subscriber from the group, which must
                // not happen while the group notifies it.
                open.first = Some(Box::new(First::FallBehind));
                Next::Yield
            }
        }
    }

    /// Adds spans to the traces of events that are given to a reader. Adds none for events that
    /// were stored before the stream was open, since their age says nothing about the gateway.
    fn trace(&self, sampled: Option<&[SampledEvent]>) {
        let (Some(sampled), Phase::Open(open)) = (sampled, &self.phase) else { return };
        let live = sampled.iter().skip_while(|event| event.id <= open.opened_at_head);
        self.context.traces.deliver(live);
    }

    fn next_slice(&mut self, mut large: LargeEvent) -> Next {
        let Some(slice) = large.next_slice() else { return self.fall_behind() };
        if slice.is_last {
            self.record_delivered(1, large.id, large.publish_time_ms);
        } else if let Phase::Open(open) = &mut self.phase {
            open.first = Some(Box::new(First::Large(large)));
        }
        Next::Give(slice.bytes)
    }

    /// Records that events were sent whole.
    fn record_delivered(&mut self, events: u64, newest: EventId, publish_time_ms: Option<u64>) {
        let Phase::Open(open) = &mut self.phase else { return };
        open.last_sent_id = newest;
        open.events = open.events.wrapping_add(u32::try_from(events).unwrap_or(u32::MAX));
        let is_live = open.opened_at_head < newest;
        let newest = is_live.then_some(Newest { id: newest, publish_time_ms });
        self.context.record_delivered(1, events, newest);
    }

    fn checkpoint(&mut self, now: Instant) -> Next {
        self.written_at = now;
        let Phase::Open(open) = &mut self.phase else { return Next::Finished };
        open.last_sent_id = open.subscriber.cursor();
        open.checkpoint_due = false;
        Next::Say(Control::Checkpoint(open.last_sent_id))
    }

    /// Ends the stream, with a checkpoint first if its cursor is beyond the last id that the reader
    /// was sent.
    fn next_end(&mut self) -> Next {
        let Phase::Open(open) = &mut self.phase else { return Next::Finished };
        // No checkpoint may follow a gap that was not sent: the cursor then is the id that the
        // reader sent. During a fold, the cursor is before it.
        let is_behind = open.last_sent_id != open.subscriber.cursor();
        if is_behind && !open.checkpoint_due && !open.has_fold() {
            open.is_ending = true;
            return self.checkpoint(self.written_at);
        }
        self.finish(self.end_reason.as_str());
        Next::Say(Control::End(End::of_stream(self.end_reason)))
    }

    /// Sets the end of the stream when a drain has begun.
    fn check_drain(&mut self) {
        if self.end_reason == EndReason::Draining {
            return;
        }
        let Some(end_at) = self.context.random_drain_end() else { return };
        self.end_reason = EndReason::Draining;
        self.end_at = self.end_at.min(end_at);
    }

    /// Notifies the reader about its token, and ends the stream when the token has expired, even if
    /// there are more events.
    fn next_of_lease(&mut self, now: Instant) -> Option<Next> {
        let Phase::Open(open) = &mut self.phase else { return None };
        let lease = open.extras.as_mut()?.lease.as_mut()?;
        if let Some(left) = lease.poll_notice(now).filter(|left| !left.is_zero()) {
            self.written_at = now;
            return Some(Next::Say(Control::Auth(left)));
        }
        if lease.is_expired(now) {
            self.end_reason = EndReason::Expired;
            return Some(self.next_end());
        }
        None
    }

    /// Sends a checkpoint or a comment after a time without messages.
    fn next_in_silence(&mut self, now: Instant) -> Next {
        if now < self.written_at + self.context.keep_alive {
            return Next::WaitUntil(self.next_deadline());
        }
        self.written_at = now;
        self.keep_alives = self.keep_alives.saturating_add(1);
        match &self.phase {
            Phase::WaitingForLog(..) => Next::Say(Control::Waiting),
            Phase::Open(open) if open.last_sent_id != open.subscriber.cursor() => {
                self.checkpoint(now)
            }
            _ => Next::Say(Control::KeepAlive),
        }
    }

    /// Returns the time of the next step if nothing is published before it.
    pub(crate) fn next_deadline(&self) -> Instant {
        self.deadline_after(self.written_at)
    }

    fn deadline_after(&self, written_at: Instant) -> Instant {
        let keep_alive = written_at + self.context.keep_alive;
        match &self.phase {
            // The task that asks the log ends the wait at the maximum age. A driver that got that
            // time after it has passed would repeat without a pause.
            Phase::WaitingForLog(..) => keep_alive,
            Phase::Open(open) => {
                let end_at = open.lease().map_or(self.end_at, LeaseTimer::next_deadline);
                keep_alive.min(self.end_at).min(end_at)
            }
            Phase::Finished | Phase::FellBehind => keep_alive.min(self.end_at),
        }
    }
}
