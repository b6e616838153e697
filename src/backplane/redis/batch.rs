//! Decodes a batch, which the tail reads with one request. The reply of Redis is decoded by hand,
//! so that an invalid entry does not prevent the entries after it from being read.

use std::collections::HashMap;

use redis::Value;

use crate::{
    backplane::{
        redis::{
            entry::{self, Entry},
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
        let role = list(reply.role).into_iter().next();
        if !matches!(role, Some(Value::BulkString(role)) if role == b"master") {
            return Err(TailError::Demoted);
        }
        let Ok([entries, renewals, newest, trimmed]) = <[Value; 4]>::try_from(list(reply.read))
        else {
            return Err(TailError::UnexpectedReply);
        };
        let id = |value| text(value)?.parse().ok();
        Ok(Self {
            entries: list(entries).into_iter().map(decode_entry).collect::<Result<_, _>>()?,
            renewals: list(renewals).into_iter().map(decode_renewal).collect::<Result<_, _>>()?,
            newest: id(newest),
            trimmed: id(trimmed).ok_or(TailError::UnexpectedReply)?,
        })
    }
}

/// Returns the values of a list. Any other value is an empty list.
fn list(value: Value) -> Vec<Value> {
    if let Value::Array(values) = value { values } else { Vec::new() }
}

/// Returns the text of a string. `None` for any other value, or invalid UTF-8.
fn text(value: Value) -> Option<String> {
    let Value::BulkString(bytes) = value else { return None };
    String::from_utf8(bytes).ok()
}

/// Decodes an id and its fields. Skips a field whose name is not text: this program writes none.
fn decode_fields(value: Value) -> Result<(EventId, HashMap<String, Value>), TailError> {
    let mut parts = list(value).into_iter();
    let id = parts.next().and_then(text).and_then(|id| id.parse().ok());
    let id = id.ok_or(TailError::UnexpectedReply)?;
    let mut values = parts.next().map(list).unwrap_or_default().into_iter();
    let mut fields = HashMap::new();
    while let (Some(name), Some(value)) = (values.next(), values.next()) {
        if let Some(name) = text(name) {
            fields.insert(name, value);
        }
    }
    Ok((id, fields))
}

fn decode_entry(value: Value) -> Result<(EventId, Entry), TailError> {
    decode_fields(value).map(|(id, fields)| (id, entry::decode(fields)))
}

fn decode_renewal(value: Value) -> Result<(EventId, Option<Renewal>), TailError> {
    let (id, mut fields) = decode_fields(value)?;
    let stream = fields.remove("stream").and_then(text);
    let grant = fields.remove("grant").and_then(text);
    let renewal = stream.zip(grant).map(|(stream, grant)| Renewal { stream, grant });
    Ok((id, renewal))
}
