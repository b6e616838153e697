//! The rendered events of a topic, bounded.

use std::{collections::VecDeque, io::Write as _};

/// Bytes one behind the other. A place is how many bytes came before it since the start.
#[derive(Debug, Default)]
pub struct Log {
    bytes: Vec<u8>,
    /// Where `bytes` begins.
    base: u64,
    /// Up to where readers without arrears were sent it.
    sent: u64,
    /// Where each event ends that is still there; the first of them has the id `first_id`.
    ends: VecDeque<u64>,
    first_id: u64,
}

/// When there is so much, the older half goes.
const BYTES_MAX: usize = 8 * 1024 * 1024;

impl Log {
    /// Renders an event behind the others. Ids count from 1.
    pub fn append(&mut self, data: &[u8]) {
        if BYTES_MAX < self.bytes.len() + data.len() {
            self.trim();
        }
        let id = self.first_id + self.ends.len() as u64 + 1;
        // Writing to a vector cannot fail.
        let _ = write!(self.bytes, "id: {id}\ndata: ");
        self.bytes.extend_from_slice(data);
        self.bytes.extend_from_slice(b"\n\n");
        self.ends.push_back(self.end());
    }

    /// Only what was sent to all goes, at the end of an event.
    fn trim(&mut self) {
        let half = self.base + self.bytes.len() as u64 / 2;
        while let Some(end) = self.ends.front().copied()
            && end <= half.min(self.sent)
        {
            self.ends.pop_front();
            self.first_id += 1;
            let cut = (end - self.base) as usize;
            if half.min(self.sent) < self.ends.front().copied().unwrap_or(u64::MAX) {
                self.bytes.drain(..cut);
                self.base = end;
            }
        }
    }

    pub fn end(&self) -> u64 {
        self.base + self.bytes.len() as u64
    }

    pub fn sent(&self) -> u64 {
        self.sent
    }

    pub fn unsent(&self) -> &[u8] {
        self.from(self.sent).unwrap_or_default()
    }

    pub fn mark_sent(&mut self) {
        self.sent = self.end();
    }

    /// What comes after a place; none if some of it is gone.
    pub fn from(&self, place: u64) -> Option<&[u8]> {
        let at = place.checked_sub(self.base)?;
        self.bytes.get(at as usize..)
    }

    /// The place after an event, or after all that is gone.
    pub fn after(&self, id: u64) -> u64 {
        match id.checked_sub(self.first_id + 1) {
            Some(at) => self.ends.get(at as usize).copied().unwrap_or(self.end()),
            None => self.base,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_places_and_the_log_is_bounded() {
        let mut log = Log::default();
        for data in [b"a", b"b", b"c"] {
            log.append(data);
        }
        let text = |place| String::from_utf8_lossy(log.from(place).unwrap()).into_owned();
        assert_eq!(text(log.after(2)), "id: 3\ndata: c\n\n");
        assert_eq!(text(log.after(0)).len(), 45);
        assert_eq!(text(log.after(3)), "");

        for _ in 0..5_000 {
            log.mark_sent();
            log.append(&[b'x'; 4_096]);
            assert!(log.bytes.len() <= BYTES_MAX + 8_192);
        }
        assert_eq!(log.from(0), None);
        assert!(log.from(log.after(5_002)).unwrap().starts_with(b"id: 5003\n"));
    }
}
