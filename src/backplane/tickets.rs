//! Tickets of one process: what each stands for, until it is used or too old.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use crate::{
    backplane::UnavailableError,
    limits::concurrency::{ConcurrencyLimit, Permit},
};

/// How long a ticket is good for.
pub const TICKET_MAX: Duration = Duration::from_secs(30);
/// So many at once, with what a token of 8 kB can grant: 80 MB.
const TICKETS_MAX: usize = 10_000;
/// So many of one holder, of those that nobody has used: a twentieth of all. It is more than the
/// default of `--tickets-per-subject`, 10 per second, lets one have within [`TICKET_MAX`]: 310.
pub const TICKETS_PER_HOLDER_MAX: usize = 500;
/// Room for so many is kept.
const TICKETS_KEPT: usize = 1_024;

/// Tickets and what they stand for.
#[derive(Debug)]
pub struct Tickets {
    by_name: Mutex<HashMap<String, Ticket>>,
    by_holder: Arc<ConcurrencyLimit<Arc<str>>>,
}

#[derive(Debug)]
struct Ticket {
    kept: Instant,
    meaning: String,
    _counted: Option<Permit<Arc<str>>>,
}

/// Why a ticket is not kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeepTicketError {
    /// Its holder has [`TICKETS_PER_HOLDER_MAX`] that nobody has used.
    #[error("one holder has too many tickets")]
    TooManyOfHolder,
    /// There is no room for one more of anybody.
    #[error("there are too many tickets")]
    TooMany,
    /// The log that keeps them did not answer.
    #[error(transparent)]
    Unavailable(UnavailableError),
}

impl Default for Tickets {
    fn default() -> Self {
        Self { by_name: Mutex::default(), by_holder: ConcurrencyLimit::new(TICKETS_PER_HOLDER_MAX) }
    }
}

impl Tickets {
    /// Keeps what a ticket of `holder` stands for.
    ///
    /// # Errors
    /// When there are too many of this holder, or of all.
    pub fn keep(
        &self,
        ticket: &str,
        holder: &str,
        meaning: String,
        now: Instant,
    ) -> Result<(), KeepTicketError> {
        let counted = self.by_holder.try_acquire(Some(holder.into()));
        let counted = counted.map_err(|_| KeepTicketError::TooManyOfHolder)?;
        let mut by_name = self.by_name.lock().unwrap_or_else(PoisonError::into_inner);
        if TICKETS_MAX <= by_name.len() {
            return Err(KeepTicketError::TooMany);
        }
        by_name.insert(ticket.to_owned(), Ticket { kept: now, meaning, _counted: counted });
        Ok(())
    }

    /// Forgets those that nobody used in time. To be called about once a second.
    pub fn sweep(&self, now: Instant) {
        let mut by_name = self.by_name.lock().unwrap_or_else(PoisonError::into_inner);
        by_name.retain(|_, ticket| now.duration_since(ticket.kept) < TICKET_MAX);
        by_name.shrink_to(TICKETS_KEPT);
    }

    /// What a ticket stands for, once.
    pub fn take(&self, ticket: &str, now: Instant) -> Option<String> {
        let mut by_name = self.by_name.lock().unwrap_or_else(PoisonError::into_inner);
        let ticket = by_name.remove(ticket)?;
        (now.duration_since(ticket.kept) < TICKET_MAX).then_some(ticket.meaning)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ticket_is_good_once_and_not_for_long() {
        let tickets = Tickets::default();
        let start = Instant::now();
        tickets.keep("a", "sub:alice", "x".to_owned(), start).unwrap();
        tickets.keep("b", "sub:alice", "y".to_owned(), start).unwrap();
        assert_eq!(tickets.take("a", start + TICKET_MAX / 2).as_deref(), Some("x"));
        assert_eq!(tickets.take("a", start), None);
        assert_eq!(tickets.take("b", start + TICKET_MAX), None);
    }

    #[test]
    fn those_that_nobody_used_make_room() {
        let tickets = Tickets::default();
        let start = Instant::now();
        let keep = |name: &str, now| tickets.keep(name, name, String::new(), now);
        for n in 0..TICKETS_MAX {
            keep(&n.to_string(), start).unwrap();
        }
        assert_eq!(keep("one more", start), Err(KeepTicketError::TooMany));
        tickets.sweep(start + TICKET_MAX);
        keep("one more", start + TICKET_MAX).unwrap();
    }

    #[test]
    fn one_holder_has_a_share_of_the_tickets() {
        let tickets = Tickets::default();
        let start = Instant::now();
        let keep = |name: &str, holder, now| tickets.keep(name, holder, String::new(), now);
        for n in 0..TICKETS_PER_HOLDER_MAX {
            keep(&n.to_string(), "jti:1", start).unwrap();
        }
        assert_eq!(keep("one more", "jti:1", start), Err(KeepTicketError::TooManyOfHolder));
        keep("another's", "jti:2", start).unwrap();
        // One that was used makes room, and those that are too old do.
        assert!(tickets.take("0", start).is_some());
        keep("one more", "jti:1", start).unwrap();
        assert_eq!(keep("two more", "jti:1", start), Err(KeepTicketError::TooManyOfHolder));
        tickets.sweep(start + TICKET_MAX);
        keep("two more", "jti:1", start + TICKET_MAX).unwrap();
    }
}
