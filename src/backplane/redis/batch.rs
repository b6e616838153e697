//! Decodes a batch, which the tail reads with one request. The entries are decoded by hand, so that
//! an invalid entry does not prevent the entries after it from being read.

use redis::Value;

use crate::{
    backplane::{
        redis::{
            entry::{self, Entry, Fields},
            error::TailError,
            link::Reply,
        },
        renewal::Renewal,
    },
    model::event_id::EventId,
};

/// Entries and renewals that one request returned.
#[derive(Debug)]
pub(crate) struct LogBatch {
    pub(crate) entries: Vec<(EventId, Entry)>,
    /// Renewals. `None` for one that cannot be decoded.
    pub(crate) renewals: Vec<(EventId, Option<Renewal>)>,
    /// Newest id of the log, just after the entries were read. `None` if there is no log.
    pub(crate) newest: Option<EventId>,
    /// Newest id that had been trimmed from the log by then.
    pub(crate) trimmed: EventId,
}

impl LogBatch {
    /// Decodes a reply.
    ///
    /// # Errors
    /// Fails when the server is not a master, or when the reply is not that of `lua/read.lua`.
    pub(crate) fn decode(reply: Reply) -> Result<Self, TailError> {
        let is_master = |role| matches!(role, Value::BulkString(role) if role == b"master");
        if !list(reply.role).into_iter().next().is_some_and(is_master) {
            return Err(TailError::Demoted);
        }
        let Ok([entries, renewals, newest, trimmed]) = <[Value; 4]>::try_from(list(reply.read))
        else {
            return Err(TailError::UnexpectedReply);
        };
        let id = |value| std::str::from_utf8(&bytes(value)).ok()?.parse().ok();
        Ok(Self {
            entries: unpack(&bytes(entries), entry::decode)?,
            renewals: unpack(&bytes(renewals), decode_renewal)?,
            newest: id(newest),
            trimmed: id(trimmed).ok_or(TailError::UnexpectedReply)?,
        })
    }
}

/// Returns the values of a list. Any other value is an empty list.
fn list(value: Value) -> Vec<Value> {
    if let Value::Array(values) = value { values } else { Vec::new() }
}

/// Returns the bytes of a string. Any other value is an empty string.
pub(crate) fn bytes(value: Value) -> Vec<u8> {
    if let Value::BulkString(bytes) = value { bytes } else { Vec::new() }
}

/// Unpacks entries that `pack` in `lua/shared.lua` packed, and decodes the fields of each.
pub(crate) fn unpack<T>(
    packed: &[u8],
    decode: impl Fn(&Fields<'_>) -> T,
) -> Result<Vec<(EventId, T)>, TailError> {
    let mut packed = Packed(packed);
    let mut fields = Fields::default();
    let mut entries = Vec::new();
    while !packed.0.is_empty() {
        let id = packed.unpack_entry(&mut fields).ok_or(TailError::UnexpectedReply)?;
        entries.push((id, decode(&fields)));
    }
    Ok(entries)
}

/// Rest of the packed entries.
struct Packed<'a>(&'a [u8]);

impl<'a> Packed<'a> {
    /// Takes the id of an entry, and replaces `fields` with its fields. `None` if the rest is no
    /// packed entry.
    fn unpack_entry(&mut self, fields: &mut Fields<'a>) -> Option<EventId> {
        let id = std::str::from_utf8(self.text()?).ok()?.parse().ok()?;
        fields.0.clear();
        for _ in 0..self.number()? / 2 {
            fields.0.push((self.text()?, self.text()?));
        }
        Some(id)
    }

    fn text(&mut self) -> Option<&'a [u8]> {
        let length = self.number()?;
        let (text, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(text)
    }

    fn number(&mut self) -> Option<usize> {
        let (bytes, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        usize::try_from(u32::from_be_bytes(*bytes)).ok()
    }
}

fn decode_renewal(fields: &Fields<'_>) -> Option<Renewal> {
    let text = |name| fields.text(name).map(str::to_owned);
    Some(Renewal { stream: text("stream")?, grant: text("grant")? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn incomplete_entries_are_an_error() {
        let parts: [&[u8]; 6] =
            [b"\0\0\0\x037-1", b"\0\0\0\x02", b"\0\0\0\x06", b"stream", b"\0\0\0\x01", b"x"];
        let whole = parts.concat();
        let unpack =
            |packed: &[u8]| unpack(packed, |fields| fields.text("stream").map(str::to_owned));
        let id = EventId { time_ms: 7, sequence: 1 };
        assert_eq!(unpack(&whole).unwrap(), [(id, Some("x".to_owned()))]);
        assert_eq!(unpack(b"").unwrap(), []);
        for end in 1..whole.len() {
            assert!(unpack(&whole[..end]).is_err(), "{end}");
        }
    }
}
