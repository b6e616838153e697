//! Command `presence`: answers with the members of a topic, as `GET /presence/{topic}` does.

use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    client::Client,
    close::{CloseCode, Refusal},
    effect::{Effect, read},
};
use crate::{
    auth::access,
    model::{
        control::EndReason,
        presence::Roster,
        topic::{ParseTopicError, Topic, TopicPattern},
    },
    outlet::format::control::PresenceData,
};

/// Largest number of members in an answer. An answer stays in memory until its client reads it.
const MEMBERS_MAX: usize = 100;

/// Members of the command.
#[derive(Deserialize)]
struct Presence {
    topic: String,
}

/// Answers with the members of a topic that the client may read.
pub(super) async fn presence(client: &Client, text: &str) -> Result<Effect, Refusal> {
    let Presence { topic } = read(text)?;
    let (topic, roster) = members(client, &topic).await?;
    match json!(PresenceData::of_roster(&topic, &roster)) {
        Value::Object(fields) => Ok(Effect::Answer(fields)),
        _ => Err(Refusal::later(EndReason::Unready, "the members could not be encoded")),
    }
}

/// Returns a topic that the client may read, and its members.
///
/// # Errors
/// Returns the refusal of the command.
pub(in crate::outlet) async fn members(
    client: &Client,
    topic: &str,
) -> Result<(Topic, Roster), Refusal> {
    client.count_request()?;
    let topic: Topic = topic.parse().map_err(|err: ParseTopicError| {
        Refusal::new(CloseCode::BadRequest, format!("topic: {err}"))
    })?;
    {
        let grant = client.grant()?;
        let asked = [TopicPattern::Exact(topic.clone())];
        access::choose(&asked, grant.as_ref(), &client.context.served)?;
    }
    let Ok(mut roster) = client.context.presence.who(&topic).await else {
        let text = "the log (Redis, --backplane) did not answer: try again later";
        return Err(Refusal::later(EndReason::Unready, text));
    };
    roster.more |= MEMBERS_MAX < roster.members.len();
    roster.members.truncate(MEMBERS_MAX);
    Ok((topic, roster))
}
