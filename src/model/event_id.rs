//! Event ids: one order over all topics.

use std::{fmt, str::FromStr};

/// Position of an event in the one order over all topics: `<unix ms>-<sequence>`.
///
/// An id has the shape of a [Redis stream
/// id](https://redis.io/docs/latest/develop/data-types/streams/#entry-ids) and is compared as a
/// pair of integers. Ids that a process assigns carry a random number of that process above the
/// 32nd bit of the sequence, so an id names its history.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EventId {
    /// Unix time in milliseconds. Never decreases within a history.
    pub time_ms: u64,
    /// Order of the events of one millisecond.
    pub sequence: u64,
}

/// Error for text that is not an event id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an event id: expected <unix ms>-<sequence>, as in 1763690177349-5648324730880001")]
pub struct ParseEventIdError;

/// Lowest bit of the sequence that belongs to the history. Sequences of Redis stay below it, so ids
/// that Redis assigns have history 0.
const HISTORY_SHIFT: u32 = 32;
/// Largest history: 21 bits. With the 32 bits of the counter, a sequence stays within the 53 bits
/// that a JavaScript number holds exactly.
pub const HISTORY_MAX: u64 = (1 << 21) - 1;
/// Longest text of an id: two `u64` and the dash. The ids of this program take at most 31 bytes.
pub(crate) const ID_LEN_MAX: usize = 41;

impl EventId {
    /// Id that is lower than every assigned id.
    pub const ZERO: Self = Self { time_ms: 0, sequence: 0 };
    /// Id that is higher than every other id.
    pub const MAX: Self = Self { time_ms: u64::MAX, sequence: u64::MAX };

    /// Returns the first id of `history`, which is cut to [`HISTORY_MAX`].
    pub fn start_of(history: u64, time_ms: u64) -> Self {
        Self { time_ms, sequence: (history & HISTORY_MAX) << HISTORY_SHIFT }
    }

    /// Returns an id below every id that `history` assigns from `time_ms` on, and above its earlier
    /// ids. It belongs to that history, so a reader can resume from it.
    pub fn before(time_ms: u64, history: u64) -> Self {
        match time_ms.checked_sub(1) {
            Some(time_ms) => {
                let start = Self::start_of(history, time_ms);
                Self { time_ms, sequence: start.sequence | u64::from(u32::MAX) }
            }
            None => Self::start_of(history, 0),
        }
    }

    /// Returns an id below `self` and above every id of its history that was assigned earlier. A
    /// reader that resumes from it receives the event with the id `self` first.
    pub fn previous(self) -> Self {
        match self.sequence & u64::from(u32::MAX) {
            0 => Self::before(self.time_ms, self.history()),
            _ => Self { sequence: self.sequence - 1, ..self },
        }
    }

    /// Returns the history: the number of the process that assigned the id, 0 for Redis.
    pub fn history(self) -> u64 {
        self.sequence >> HISTORY_SHIFT
    }

    /// Returns the id after `self` at wall-clock time `now_ms`, even if the clock went back.
    pub fn next(self, now_ms: u64) -> Self {
        // The counter continues over milliseconds, so a busy gateway fills it within days. It must
        // not carry into the bits of the history: it restarts in the next millisecond.
        let counter_full = self.sequence & u64::from(u32::MAX) == u64::from(u32::MAX);
        if counter_full {
            return Self::start_of(self.history(), now_ms.max(self.time_ms + 1));
        }
        Self { time_ms: now_ms.max(self.time_ms), sequence: self.sequence + 1 }
    }
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.time_ms, self.sequence)
    }
}

impl FromStr for EventId {
    type Err = ParseEventIdError;

    fn from_str(text: &str) -> Result<Self, ParseEventIdError> {
        let number = |digits: &str| match digits.as_bytes() {
            [b'0'] | [b'1'..=b'9', ..] => digits.parse().ok(),
            // `parse` would accept a sign, and zeros before the number.
            _ => None,
        };
        if ID_LEN_MAX < text.len() {
            return Err(ParseEventIdError);
        }
        let (time_ms, sequence) = text.split_once('-').ok_or(ParseEventIdError)?;
        Ok(Self {
            time_ms: number(time_ms).ok_or(ParseEventIdError)?,
            sequence: number(sequence).ok_or(ParseEventIdError)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_grow_when_the_clock_goes_back_or_the_counter_is_full() {
        let first = EventId::start_of(7, 1_000);
        let second = first.next(900);
        assert!(first < second && second < second.next(2_000));
        let full = EventId { time_ms: 5, sequence: (7 << 32) | u64::from(u32::MAX) };
        assert!(full < full.next(5));
        assert_eq!(full.next(5).history(), 7);
    }

    #[test]
    fn only_the_text_of_an_id_is_parsed() {
        let id = EventId { time_ms: 1_763_690_177_349, sequence: 5_648_324_730_880_001 };
        assert_eq!(id.to_string().parse(), Ok(id));
        assert!(id.to_string().len() <= 31);
        for bad in
            ["", "-", "1", "1-", "-1", "1-2-3", "+1-2", "01-2", "1-02", " 1-2", "1-2 ", "a-b"]
        {
            assert_eq!(bad.parse::<EventId>(), Err(ParseEventIdError), "{bad:?}");
        }
        assert!("99999999999999999999-0".parse::<EventId>().is_err(), "more than 64 bits");
    }

    #[test]
    fn before_returns_an_id_between_those_of_two_milliseconds() {
        let cursor = EventId::before(10, 7);
        assert!(cursor < EventId::start_of(7, 10));
        assert!(EventId::start_of(7, 9).next(9) < cursor);
        assert_eq!(cursor.history(), 7);
        assert_eq!(EventId::before(0, 7), EventId::start_of(7, 0));
    }
}
