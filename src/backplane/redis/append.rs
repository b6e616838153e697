//! Appends messages to the log, several with one call of a script.

use std::sync::Arc;

use redis::{ErrorKind, RedisError, RedisResult, ServerErrorKind};

use crate::{
    backplane::{
        outcome::Confirmed,
        redis::{
            entry,
            link::{Link, parse_id},
        },
    },
    model::{event_id::EventId, message::Message},
};

/// Length of the longest message id that is remembered, in bytes. Ids of Pub/Sub have some twenty
/// digits; longer ones would take memory that no limit counts.
const MESSAGE_ID_MAX: usize = 128;
/// Number of the keys that come before the deduplication keys: the log and its state.
const LOG_KEYS: usize = 2;

impl Link {
    /// Appends messages in their order, each unless the log has one with the same message id.
    /// `seen` is the newest id that the rings hold. Returns the result of each message.
    ///
    /// # Errors
    /// Fails when Redis does not confirm any of the messages. They may have been stored.
    pub(crate) async fn append<'a>(
        &mut self,
        seen: EventId,
        messages: impl ExactSizeIterator<Item = &'a Message> + Clone,
    ) -> RedisResult<Vec<RedisResult<Confirmed>>> {
        let context = Arc::clone(&self.context);
        let dedup_key = |message: &Message| {
            let id = message.message_id.as_deref().filter(|id| id.len() <= MESSAGE_ID_MAX);
            id.map(|id| context.keys.dedup(message.topic.as_str(), id))
        };
        let dedup: Vec<_> = messages.clone().map(dedup_key).collect();
        let keys = [&context.keys.log, &context.keys.state].into_iter();
        let keys: Vec<&str> = keys.chain(dedup.iter().flatten()).map(String::as_str).collect();
        let (count, mut position) = (messages.len(), LOG_KEYS);
        let answers: Vec<String> = self
            .call(&context.scripts.append, &keys, |command, run_id| {
                let dedup_ms = context.config.dedup_age.as_millis();
                command.arg(run_id).arg(seen.to_string()).arg(dedup_ms.to_string());
                command.arg(entry::ARGS);
                for (message, key) in messages.zip(&dedup) {
                    position += usize::from(key.is_some());
                    command.arg(if key.is_some() { position } else { 0 });
                    entry::encode(command, message);
                }
            })
            .await?;
        if answers.len() != count {
            return Err((ErrorKind::UnexpectedReturnType, "not an answer for each message").into());
        }
        Ok(answers.iter().map(|answer| parse_answer(answer)).collect())
    }
}

/// Parses the answer of `lua/append.lua` to one message.
fn parse_answer(answer: &str) -> RedisResult<Confirmed> {
    if answer == "duplicate" {
        return Ok(Confirmed::Duplicate);
    }
    match answer.strip_prefix("error: ") {
        Some(reason) => {
            let kind = ErrorKind::Server(ServerErrorKind::ResponseError);
            Err(RedisError::from((kind, "a message was not appended", reason.to_owned())))
        }
        None => parse_id(answer).map(Confirmed::Stored),
    }
}
