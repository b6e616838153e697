//! What a tail reads at once, taken apart by hand: an entry that is not as it should be must not
//! keep those after it from being read.

use std::collections::HashMap;

use redis::Value;

use crate::{
    backplane::{
        Renewal,
        redis::{
            entry::{self, Entry},
            link::Reply,
            tail::TailError,
        },
    },
    model::event::EventId,
};

/// What was read at once.
#[derive(Debug)]
pub struct LogBatch {
    pub entries: Vec<(EventId, Entry)>,
    /// None for one that says nothing.
    pub renewals: Vec<(EventId, Option<Renewal>)>,
    /// Of the log, just after that. None if there is no log.
    pub newest: Option<EventId>,
    /// The newest entry that had been trimmed away by then.
    pub trimmed: EventId,
}

impl LogBatch {
    /// Takes a reply apart.
    ///
    /// # Errors
    /// When it is not of a master, or not what the script returns.
    pub fn of(reply: Reply) -> Result<Self, TailError> {
        let role = list(reply.role).into_iter().next();
        if !matches!(role, Some(Value::BulkString(role)) if role == b"master") {
            return Err(TailError::Demoted);
        }
        let Ok([entries, renewals, newest, trimmed]) = <[Value; 4]>::try_from(list(reply.read))
        else {
            return Err(TailError::Strange);
        };
        let id = |value| text(value)?.parse().ok();
        Ok(Self {
            entries: list(entries).into_iter().map(read_entry).collect::<Result<_, _>>()?,
            renewals: list(renewals).into_iter().map(read_renewal).collect::<Result<_, _>>()?,
            newest: id(newest),
            trimmed: id(trimmed).ok_or(TailError::Strange)?,
        })
    }
}

fn list(value: Value) -> Vec<Value> {
    if let Value::Array(values) = value { values } else { Vec::new() }
}

fn text(value: Value) -> Option<String> {
    let Value::BulkString(bytes) = value else { return None };
    String::from_utf8(bytes).ok()
}

/// An id and its fields. A name that is no text is none of ours.
fn read_fields(value: Value) -> Result<(EventId, HashMap<String, Value>), TailError> {
    let mut parts = list(value).into_iter();
    let id =
        parts.next().and_then(text).and_then(|id| id.parse().ok()).ok_or(TailError::Strange)?;
    let mut values = parts.next().map(list).unwrap_or_default().into_iter();
    let mut fields = HashMap::new();
    while let (Some(name), Some(value)) = (values.next(), values.next()) {
        if let Some(name) = text(name) {
            fields.insert(name, value);
        }
    }
    Ok((id, fields))
}

fn read_entry(value: Value) -> Result<(EventId, Entry), TailError> {
    read_fields(value).map(|(id, fields)| (id, entry::read(fields)))
}

fn read_renewal(value: Value) -> Result<(EventId, Option<Renewal>), TailError> {
    let (id, mut fields) = read_fields(value)?;
    let stream = fields.remove("stream").and_then(text);
    let grant = fields.remove("grant").and_then(text);
    let renewal = stream.zip(grant).map(|(stream, grant)| Renewal { stream, grant });
    Ok((id, renewal))
}
