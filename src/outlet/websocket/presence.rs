//! Command `presence`: answers with the members of a topic, as `GET /presence/{topic}` does.

use serde::Deserialize;
use serde_json::{Value, json};

use super::effect::{Effect, read};
use crate::{
    model::control::EndReason,
    outlet::{
        client::{Client, refusal::Refusal},
        format::control::PresenceData,
    },
};

/// Members of the command.
#[derive(Deserialize)]
struct Presence {
    topic: String,
}

/// Answers with the members of a topic that the client may read.
pub(super) async fn presence(client: &Client, text: &str) -> Result<Effect, Refusal> {
    let Presence { topic } = read(text)?;
    let (topic, roster) = client.members(&topic).await?;
    match json!(PresenceData::of_roster(&topic, &roster)) {
        Value::Object(fields) => Ok(Effect::Answer(fields)),
        _ => Err(Refusal::later(EndReason::Unready, "the members could not be encoded")),
    }
}
