//! Tickets of one process: what each stands for, until it is used or too old.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// How long a ticket is good for.
pub const TICKET_MAX: Duration = Duration::from_secs(30);
/// So many at once, with what a token of 8 kB can grant: 80 MB.
const TICKETS_MAX: usize = 10_000;
/// Room for so many is kept.
const TICKETS_KEPT: usize = 1_024;

/// Tickets and what they stand for.
#[derive(Debug, Default)]
pub struct Tickets {
    by_name: Mutex<HashMap<String, (Instant, String)>>,
}

impl Tickets {
    /// Keeps what a ticket stands for. Returns whether there was room.
    pub fn keep(&self, ticket: &str, meaning: String, now: Instant) -> bool {
        let mut by_name = self.by_name.lock().unwrap_or_else(PoisonError::into_inner);
        let has_room = by_name.len() < TICKETS_MAX;
        if has_room {
            by_name.insert(ticket.to_owned(), (now, meaning));
        }
        has_room
    }

    /// Forgets those that nobody used in time. To be called about once a second.
    pub fn sweep(&self, now: Instant) {
        let mut by_name = self.by_name.lock().unwrap_or_else(PoisonError::into_inner);
        by_name.retain(|_, (kept, _)| now.duration_since(*kept) < TICKET_MAX);
        by_name.shrink_to(TICKETS_KEPT);
    }

    /// What a ticket stands for, once.
    pub fn take(&self, ticket: &str, now: Instant) -> Option<String> {
        let mut by_name = self.by_name.lock().unwrap_or_else(PoisonError::into_inner);
        let (kept, meaning) = by_name.remove(ticket)?;
        (now.duration_since(kept) < TICKET_MAX).then_some(meaning)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ticket_is_good_once_and_not_for_long() {
        let tickets = Tickets::default();
        let start = Instant::now();
        assert!(
            tickets.keep("a", "x".to_owned(), start) && tickets.keep("b", "y".to_owned(), start)
        );
        assert_eq!(tickets.take("a", start + TICKET_MAX / 2).as_deref(), Some("x"));
        assert_eq!(tickets.take("a", start), None);
        assert_eq!(tickets.take("b", start + TICKET_MAX), None);
    }

    #[test]
    fn those_that_nobody_used_make_room() {
        let tickets = Tickets::default();
        let start = Instant::now();
        for n in 0..TICKETS_MAX {
            assert!(tickets.keep(&n.to_string(), String::new(), start));
        }
        assert!(!tickets.keep("one more", String::new(), start));
        tickets.sweep(start + TICKET_MAX);
        assert!(tickets.keep("one more", String::new(), start + TICKET_MAX));
    }
}
