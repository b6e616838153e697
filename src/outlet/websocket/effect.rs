//! Effects of commands: what is left to do for a command that was read.

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::{
    auth::grant::Grant,
    outlet::client::refusal::{CloseCode, Refusal},
    stream::request::Parameters,
};

/// Result of reading and checking a command, and the `ref` of its answer.
#[derive(Debug)]
pub(super) struct CommandResult {
    pub(super) reference: Option<Value>,
    pub(super) result: Result<Effect, Refusal>,
}

/// Action that the session performs after a command was checked. It does not wait.
#[derive(Debug)]
pub(super) enum Effect {
    /// Opens a stream with a name.
    Subscribe(String, Box<Parameters>),
    /// Ends the stream with a name.
    Unsubscribe(String),
    /// Extends the leases of all streams.
    Renew(Box<Grant>),
    /// Nothing: the command was carried out. The members are those of its answer.
    Answer(Map<String, Value>),
}

/// Parses the members of a command.
pub(super) fn read<'a, T: Deserialize<'a>>(text: &'a str) -> Result<T, Refusal> {
    if !text.trim_ascii_start().starts_with('{') {
        let text = "expected a JSON object with the member type, such as subscribe";
        return Err(Refusal::new(CloseCode::BadRequest, text));
    }
    serde_json::from_str(text).map_err(|err| {
        let text = format!("the command is malformed: {err}");
        Refusal::new(CloseCode::BadRequest, text.chars().take(256).collect::<String>())
    })
}
