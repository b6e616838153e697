//! Tickets of one process: names that stand for a grant until they are used or expire.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use crate::{
    backplane::outcome::UnavailableError,
    limits::concurrency::{ConcurrencyLimit, Permit},
};

/// Lifetime of a ticket.
pub const TICKET_MAX: Duration = Duration::from_secs(30);
/// Largest number of tickets at a time. With the grants of tokens of 8 kB they take 80 MB.
const TICKETS_MAX: usize = 10_000;
/// Largest number of unused tickets of one holder: a twentieth of all. The default of
/// `--tickets-per-subject`, 10 per second, allows 310 within [`TICKET_MAX`].
pub const TICKETS_PER_HOLDER_MAX: usize = 500;
/// Capacity that is kept when fewer tickets are left.
const CAPACITY_KEPT: usize = 1_024;

/// Tickets and their grants.
#[derive(Debug)]
pub struct Tickets {
    by_name: Mutex<HashMap<String, Ticket>>,
    by_holder: Arc<ConcurrencyLimit<Arc<str>>>,
}

#[derive(Debug)]
struct Ticket {
    created: Instant,
    grant: String,
    _permit: Option<Permit<Arc<str>>>,
}

/// Error for a ticket that is not stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeepTicketError {
    /// The holder has [`TICKETS_PER_HOLDER_MAX`] unused tickets.
    #[error("the holder has {TICKETS_PER_HOLDER_MAX} unused tickets, which is the limit")]
    TooManyOfHolder,
    /// The holders together have 10,000 unused tickets.
    #[error("there are {TICKETS_MAX} unused tickets, which is the limit")]
    TooMany,
    /// Redis did not confirm.
    #[error(transparent)]
    Unavailable(UnavailableError),
}

impl Default for Tickets {
    fn default() -> Self {
        let by_holder = ConcurrencyLimit::new(TICKETS_PER_HOLDER_MAX);
        Self { by_name: Mutex::default(), by_holder }
    }
}

impl Tickets {
    /// Stores a ticket of `holder`.
    ///
    /// # Errors
    /// Fails when this holder, or all holders together, have too many unused tickets.
    pub fn insert(
        &self,
        name: &str,
        holder: &str,
        grant: String,
        now: Instant,
    ) -> Result<(), KeepTicketError> {
        let permit = self.by_holder.try_acquire(Some(holder.into()));
        let permit = permit.map_err(|_| KeepTicketError::TooManyOfHolder)?;
        let mut by_name = self.by_name.lock().unwrap_or_else(PoisonError::into_inner);
        if TICKETS_MAX <= by_name.len() {
            return Err(KeepTicketError::TooMany);
        }
        by_name.insert(name.to_owned(), Ticket { created: now, grant, _permit: permit });
        Ok(())
    }

    /// Removes expired tickets. Called about once a second.
    pub fn sweep(&self, now: Instant) {
        let mut by_name = self.by_name.lock().unwrap_or_else(PoisonError::into_inner);
        by_name.retain(|_, ticket| now.duration_since(ticket.created) < TICKET_MAX);
        by_name.shrink_to(CAPACITY_KEPT);
    }

    /// Removes a ticket and returns its grant. `None` if it is unknown, used or expired.
    pub fn take(&self, name: &str, now: Instant) -> Option<String> {
        let mut by_name = self.by_name.lock().unwrap_or_else(PoisonError::into_inner);
        let ticket = by_name.remove(name)?;
        (now.duration_since(ticket.created) < TICKET_MAX).then_some(ticket.grant)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ticket_is_valid_once_and_until_it_expires() {
        let tickets = Tickets::default();
        let start = Instant::now();
        tickets.insert("a", "sub:alice", "x".to_owned(), start).unwrap();
        tickets.insert("b", "sub:alice", "y".to_owned(), start).unwrap();
        assert_eq!(tickets.take("a", start + TICKET_MAX / 2).as_deref(), Some("x"));
        assert_eq!(tickets.take("a", start), None);
        assert_eq!(tickets.take("b", start + TICKET_MAX), None);
    }

    #[test]
    fn expired_tickets_make_room_for_new_ones() {
        let tickets = Tickets::default();
        let start = Instant::now();
        let insert = |name: &str, now| tickets.insert(name, name, String::new(), now);
        for n in 0..TICKETS_MAX {
            insert(&n.to_string(), start).unwrap();
        }
        assert_eq!(insert("one more", start), Err(KeepTicketError::TooMany));
        tickets.sweep(start + TICKET_MAX);
        assert_eq!(insert("one more", start + TICKET_MAX), Ok(()));
    }

    #[test]
    fn one_holder_has_a_share_of_the_tickets() {
        let tickets = Tickets::default();
        let start = Instant::now();
        let insert = |name: &str, holder, now| tickets.insert(name, holder, String::new(), now);
        for n in 0..TICKETS_PER_HOLDER_MAX {
            insert(&n.to_string(), "jti:1", start).unwrap();
        }
        let too_many = Err(KeepTicketError::TooManyOfHolder);
        assert_eq!(insert("one more", "jti:1", start), too_many);
        insert("of another", "jti:2", start).unwrap();
        // A used ticket makes room, and so do expired tickets.
        assert!(tickets.take("0", start).is_some());
        insert("one more", "jti:1", start).unwrap();
        assert_eq!(insert("two more", "jti:1", start), too_many);
        tickets.sweep(start + TICKET_MAX);
        insert("two more", "jti:1", start + TICKET_MAX).unwrap();
    }
}
