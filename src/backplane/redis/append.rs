//! Appends messages to the log, several with one call of a script.

use std::sync::Arc;

use bytes::BufMut as _;
use redis::{ErrorKind, RedisError, RedisResult, RedisWrite as _, ServerErrorKind, Value};

use crate::{
    backplane::{
        outcome::{Confirmed, MESSAGE_ID_MAX_BYTES},
        redis::{
            batch::{bytes, unpack},
            entry::{self, Entry},
            link::{Link, parse_id},
        },
    },
    model::{event_id::EventId, message::Message},
};

/// Number of the keys that come before the deduplication keys: the log and its state.
const LOG_KEYS: u32 = 2;
/// Number of entries of other replicas after which a call reads no more of them. Pushes wait for
/// the answer, so it must be short: the tail reads a longer backlog.
const READ_MAX: usize = 128;
/// Number of bytes after which a call reads no more entries.
const READ_BYTES: usize = 256 * 1024;

/// Answer to a call that appended messages.
#[derive(Debug)]
pub(crate) struct Appended {
    /// Result of each message.
    pub(crate) results: Vec<RedisResult<Confirmed>>,
    /// What the caller had not read. `None` if the caller did not ask, or if there were too many.
    pub(crate) before: Option<Before>,
}

/// All entries between the newest entry that the caller has read and its own messages.
#[derive(Debug)]
pub(crate) struct Before {
    pub(crate) entries: Vec<(EventId, Entry)>,
    /// Newest id that had been trimmed from the log. Ids that the caller has read may be missing.
    pub(crate) trimmed: EventId,
}

impl Link {
    /// Appends messages in their order, each unless the log has one with the same message id.
    /// `seen` is the newest id that the caller has read. With `reads`, reads the entries after it.
    ///
    /// # Errors
    /// Fails when Redis does not confirm any of the messages. They may have been stored.
    pub(crate) async fn append(
        &mut self,
        seen: EventId,
        reads: bool,
        messages: &[Message],
    ) -> RedisResult<Appended> {
        let context = Arc::clone(&self.context);
        let dedup_key = |message: &Message| {
            let id = message.message_id.as_deref().filter(|id| id.len() <= MESSAGE_ID_MAX_BYTES);
            id.map(|id| context.keys.dedup(message.topic.as_str(), id))
        };
        let dedup: Vec<_> = messages.iter().map(dedup_key).collect();
        let keys = [&context.keys.log, &context.keys.state].into_iter();
        let keys: Vec<&str> = keys.chain(dedup.iter().flatten()).map(String::as_str).collect();
        let mut position = LOG_KEYS;
        let answer: Value = self
            .call(&context.scripts.append, &keys, |command, run_id| {
                let dedup_ms = context.config.dedup_age.as_millis();
                command.arg(run_id).arg(seen.to_string()).arg(dedup_ms.to_string());
                command.arg(READ_BYTES).arg(if reads { READ_MAX } else { 0 });
                // One argument for all messages, since each argument has a cost.
                let mut argument = command.bufmut_for_next_arg(0);
                for (message, key) in messages.iter().zip(&dedup) {
                    position += u32::from(key.is_some());
                    argument.put_u32(if key.is_some() { position } else { 0 });
                    entry::encode(message, &mut argument);
                }
            })
            .await?;
        let mut appended = parse_answer(&bytes(answer), messages.len()).ok_or_else(|| {
            RedisError::from((ErrorKind::UnexpectedReturnType, "not an answer of append.lua"))
        })?;
        appended.before = appended.before.filter(|_| reads);
        Ok(appended)
    }
}

/// Parses the answer of `lua/append.lua` to `count` messages. `None` for any other text.
fn parse_answer(answer: &[u8], count: usize) -> Option<Appended> {
    let mut lines = answer.splitn(count + 2, |byte| *byte == b'\n');
    let first = str::from_utf8(lines.next()?).ok()?;
    let results: Vec<_> = lines.by_ref().take(count).map(parse_result).collect();
    // The packed entries come last, also if there are none.
    let packed = lines.next()?;
    let (trimmed, rest) = first.split_once(' ')?;
    let trimmed = trimmed.parse().ok()?;
    let entries = if rest == "all" { Some(unpack(packed, entry::decode).ok()?) } else { None };
    Some(Appended { results, before: entries.map(|entries| Before { entries, trimmed }) })
}

/// Parses the line of `lua/append.lua` for one message.
fn parse_result(line: &[u8]) -> RedisResult<Confirmed> {
    if let Some(reason) = line.strip_prefix(b"error: ") {
        let kind = ErrorKind::Server(ServerErrorKind::ResponseError);
        let reason = String::from_utf8_lossy(reason).into_owned();
        return Err(RedisError::from((kind, "a message was not appended", reason)));
    }
    // The empty text is no id either.
    let line = str::from_utf8(line).unwrap_or_default();
    match line.strip_prefix("duplicate: ") {
        Some(id) => parse_id(id).map(Confirmed::Duplicate),
        None => parse_id(line).map(Confirmed::Stored),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_of_another_form_are_refused() {
        let id = EventId { time_ms: 7, sequence: 1 };
        let answer = b"0-0 all\n7-1\nduplicate: 7-1\nerror: full\n";
        let appended = parse_answer(answer, 3).unwrap();
        let results: Vec<_> = appended.results.into_iter().map(Result::ok).collect();
        assert_eq!(results, [Some(Confirmed::Stored(id)), Some(Confirmed::Duplicate(id)), None]);
        assert!(appended.before.unwrap().entries.is_empty());
        assert!(parse_answer(b"0-0 more\n7-1\n", 1).unwrap().before.is_none());
        for answer in ["", "0-0", "0-0 all", "0-0 all\n7-1", "x all\n7-1\n", "0-0 all\n7-1\nx"] {
            assert!(parse_answer(answer.as_bytes(), 1).is_none(), "{answer:?}");
        }
    }
}
