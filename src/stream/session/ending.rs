//! Ends of a session: each is counted and logged once.

use super::{Session, next::Next, state::Phase};
use crate::stream::log_lines::Ended;

impl Session {
    /// Records that the reader's socket took nothing for too long. If the stream is then dropped,
    /// it is counted as stalled.
    pub(crate) fn mark_stalled(&mut self) {
        self.stalled = true;
    }

    /// Ends the stream without a last message: its reader has what it asked for, or has left.
    /// `reason` is the label of the metric.
    pub(crate) fn finish(&mut self, reason: &'static str) {
        if let Phase::Open(open) = &self.phase {
            let outlet = self.format.outlet();
            let metrics = &self.context.metrics;
            metrics.streams_ended.with_label_values(&[reason]).inc();
            metrics.streams_by_outlet.with_label_values(&[outlet]).dec();
            let (events, cursor) = (open.events, open.last_sent_id);
            self.context.log_lines.end(self.logged, Ended { outlet, reason, events, cursor });
        }
        self.phase = Phase::Finished;
    }

    /// Ends the stream of a reader that cannot get its next event whole.
    pub(super) fn fall_behind(&mut self) -> Next {
        self.finish("fell-behind");
        self.phase = Phase::FellBehind;
        Next::FellBehind
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.finish(if self.stalled { "stalled" } else { "client" });
    }
}
