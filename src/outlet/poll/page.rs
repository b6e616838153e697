//! Page: the events that answer one poll.

use std::sync::Arc;

use crate::{
    limits::budget::{Budget, Claim},
    model::{control::EndReason, event_id::EventId, gap::Gap},
};

/// Size from which a page takes no more events. The largest page has this size and one event.
const PAGE_BYTES: usize = 1024 * 1024;

/// Page of events, which are encoded by [`Record`](super::encode).
#[derive(Debug)]
pub(in crate::outlet) struct Page {
    /// JSON of the events, separated by commas.
    pub(super) events: Vec<u8>,
    pub(super) gap: Option<Gap>,
    /// True if there is more to read at once.
    pub(super) more: bool,
    /// Memory of the page.
    pub(super) claim: Claim,
    /// Id after which reading began.
    pub(super) from: Option<EventId>,
    next: Option<EventId>,
    /// Part of a record that has not ended.
    record: Vec<u8>,
    count: usize,
    limit: usize,
}

impl Page {
    /// Creates an empty page of at most `limit` events.
    pub(super) fn new(limit: usize, budget: &Arc<Budget>) -> Self {
        Self {
            events: Vec::new(),
            gap: None,
            more: false,
            claim: budget.claim(),
            from: None,
            next: None,
            record: Vec::new(),
            count: 0,
            limit,
        }
    }

    /// Adds encoded events, or a part of one. Ignores those beyond the limit.
    ///
    /// # Errors
    /// Fails when the memory for pages is used up and the page is empty.
    pub(super) fn push(&mut self, bytes: &[u8]) -> Result<(), EndReason> {
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            if self.limit <= self.count {
                self.more = true;
                return Ok(());
            }
            if !self.claim.grow(part.len()) {
                (self.more, self.limit) = (true, self.count);
                self.record.clear();
                return if self.count == 0 { Err(EndReason::Busy) } else { Ok(()) };
            }
            self.record.extend_from_slice(part);
            if part.ends_with(b"\n") {
                self.take_record();
            }
        }
        Ok(())
    }

    fn take_record(&mut self) {
        let record = std::mem::take(&mut self.record);
        let Ok(text) = str::from_utf8(record.trim_ascii_end()) else { return };
        let Some((id, json)) = text.split_once(' ') else { return };
        if !self.events.is_empty() {
            self.events.push(b',');
        }
        self.events.extend_from_slice(json.as_bytes());
        self.count += 1;
        self.next = id.parse().ok().or(self.next);
    }

    /// Adds a gap. Gaps before the events are merged. A gap after an event ends the page, and the
    /// next poll gets that gap.
    pub(super) fn push_gap(&mut self, gap: Gap) {
        match &mut self.gap {
            _ if 0 < self.count => (self.more, self.limit) = (true, self.count),
            Some(first) => (first.upto, first.topics) = (gap.upto, Vec::new()),
            None => self.gap = Some(gap),
        }
    }

    /// Sets the id after which the next poll reads.
    pub(super) fn set_next(&mut self, id: EventId) {
        self.from = self.from.or(Some(id));
        self.next = Some(id);
    }

    /// Returns the id after which the next poll reads. `None` before the stream was opened.
    pub(super) fn next(&self) -> Option<EventId> {
        self.next
    }

    /// Returns true if the page has something that the reader waits for.
    pub(super) fn has_news(&self) -> bool {
        0 < self.count || self.gap.is_some()
    }

    /// Returns true if the page has nothing, also no part of an event.
    pub(super) fn is_empty(&self) -> bool {
        !self.has_news() && self.record.is_empty()
    }

    /// Ends the page before an event that cannot be read now.
    pub(super) fn cut(&mut self) {
        (self.more, self.limit) = (true, self.count);
    }

    /// Returns true if the page takes no more events.
    pub(super) fn is_full(&self) -> bool {
        self.next.is_some() && (self.limit <= self.count || PAGE_BYTES <= self.events.len())
    }

    /// Ends the page. `position` holds the cursor of the stream, and whether there is more to read
    /// after the cursor.
    pub(super) fn finish(&mut self, position: Option<(EventId, bool)>) {
        // A page that ends within an event, or before a gap, ends before the cursor.
        self.more |= !self.record.is_empty();
        if let (Some((cursor, has_more)), false) = (position, self.more) {
            // A page with the limit 0 reads no events, so it cannot say that there are more.
            self.more = has_more && 0 < self.limit;
            self.next = self.next.max(Some(cursor));
        }
    }
}
