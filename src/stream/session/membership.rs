//! Membership in a broadcast: the part of a session that lets one read serve many sessions of a
//! group.

use actix_web::web;
use tokio::time::Instant;

use super::{MemberPosition, Phase, Session};
use crate::{hub::Subscriber, model::event_id::EventId, stream::StreamContext};

impl Session {
    /// Returns the subscriber if the session only has to read after a notification.
    pub(crate) fn reading(&mut self) -> Option<&mut Subscriber> {
        let is_draining = self.context.hub.draining().is_some();
        match &mut self.phase {
            Phase::Open(open) if open.is_reading() && !is_draining => Some(&mut open.subscriber),
            _ => None,
        }
    }

    /// Returns the subscriber of a stream that is open.
    pub(crate) fn subscriber(&self) -> Option<&Subscriber> {
        match &self.phase {
            Phase::Open(open) => Some(&open.subscriber),
            _ => None,
        }
    }

    /// Returns true if a checkpoint must be sent before the stream may join a broadcast.
    pub(crate) fn is_checkpoint_due(&self) -> bool {
        matches!(&self.phase, Phase::Open(open) if open.checkpoint_due)
    }

    /// Returns the id up to which the reader was sent everything. A broadcast whose cursor is
    /// before a gap that this reader has received would send the gap again.
    pub(crate) fn sent_upto(&self) -> EventId {
        match &self.phase {
            Phase::Open(open) if open.gap_sent => open.subscriber.cursor(),
            Phase::Open(open) => open.last_sent_id,
            _ => EventId::MAX,
        }
    }

    /// Records that the stream is now a member of a broadcast, at this position.
    pub(crate) fn join(&mut self, at: MemberPosition) {
        if let Phase::Open(open) = &mut self.phase {
            open.gap_sent = false;
            open.events = open.events.wrapping_sub(at.events);
            open.subscriber.stop_waiting();
        }
    }

    /// Continues at the position that the stream had in the broadcast.
    pub(crate) fn leave(&mut self, at: MemberPosition) {
        let Phase::Open(open) = &mut self.phase else { return };
        open.subscriber.move_to(at.position);
        open.events = open.events.wrapping_add(at.events);
        if open.last_sent_id < at.last_sent_id {
            open.last_sent_id = at.last_sent_id;
            self.written_at = at.written_at;
        }
    }

    /// Returns the next deadline of a stream that is a member of a broadcast at `at`.
    pub(crate) fn member_deadline(&self, at: MemberPosition) -> Instant {
        let is_ahead =
            matches!(&self.phase, Phase::Open(open) if open.last_sent_id < at.last_sent_id);
        self.deadline_after(if is_ahead { at.written_at } else { self.written_at })
    }

    /// Returns the context of all streams.
    pub(crate) fn context(&self) -> &web::Data<StreamContext> {
        &self.context
    }
}
