//! Commands: the JSON objects that a client sends, one in each text message.

use serde::{Deserialize, de::IgnoredAny};
use serde_json::Value;

use super::{
    effect::{CommandResult, Effect, read},
    presence::presence,
    publish::publish,
};
use crate::{
    outlet::client::{
        SharedClient,
        refusal::{CloseCode, Refusal},
    },
    stream::request::Parameters,
};

/// Longest name of a stream, and longest `ref`, in bytes of JSON.
const NAME_MAX_BYTES: usize = 128;
/// Length of a command, in bytes, from which on it waits for a turn: see
/// [`Turns`](crate::stream::turns::Turns).
const LONG_COMMAND_BYTES: usize = 512;

/// Members that all commands have. Others are ignored.
#[derive(Deserialize)]
struct Command {
    r#type: String,
    r#ref: Option<Value>,
}

/// Command `subscribe`: opens a stream. Other members are refused, as in the query of `GET
/// /events`: without a misspelled filter, the stream would have all events.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Subscribe {
    #[serde(rename = "type")]
    _type: IgnoredAny,
    #[serde(rename = "ref")]
    _ref: Option<IgnoredAny>,
    #[serde(default)]
    sub: String,
    /// Topics and patterns of topics. `None` means all.
    topics: Option<Vec<String>>,
    last_event_id: Option<String>,
    since: Option<String>,
    rewind: Option<u64>,
    latest: Option<String>,
    slow: Option<String>,
    filter: Option<String>,
    format: Option<String>,
    presence: Option<String>,
    name: Option<String>,
}

/// Command `unsubscribe`: ends a stream.
#[derive(Deserialize)]
struct Unsubscribe {
    #[serde(default)]
    sub: String,
}

/// Command `renew`: lets the connection go on with another token.
#[derive(Deserialize)]
struct Renew {
    token: String,
}

/// Reads a command, and carries out what has to wait for others.
pub(super) async fn run(client: SharedClient, text: String) -> CommandResult {
    let (kind, reference) = match read::<Command>(&text) {
        Ok(Command { r#type, r#ref }) => (r#type, r#ref),
        Err(refusal) => return CommandResult { reference: None, result: Err(refusal) },
    };
    let reference = match reference {
        Some(value) if !is_reference(&value) => {
            let text =
                format!("ref: expected a number, or a text of at most {NAME_MAX_BYTES} bytes");
            let result = Err(Refusal::new(CloseCode::BadRequest, text));
            return CommandResult { reference: None, result };
        }
        other => other,
    };
    let result = match kind.as_str() {
        "subscribe" => subscribe(&client, &text).await,
        "unsubscribe" => read(&text).map(|Unsubscribe { sub }| Effect::Unsubscribe(sub)),
        "renew" => renew(&client, &text).await,
        "publish" => publish(&client, &text).await,
        "presence" => presence(&client, &text).await,
        other => {
            let shown: String = other.chars().take(64).collect();
            let text = format!(
                "type: {shown:?} is no command: expected subscribe, unsubscribe, renew, publish or presence"
            );
            Err(Refusal::new(CloseCode::BadRequest, text))
        }
    };
    CommandResult { reference, result }
}

/// Returns true if a value can be the `ref` of a command.
fn is_reference(value: &Value) -> bool {
    match value {
        Value::Number(_) => true,
        Value::String(text) => text.len() <= NAME_MAX_BYTES,
        _ => false,
    }
}

async fn subscribe(client: &SharedClient, text: &str) -> Result<Effect, Refusal> {
    client.count_request()?;
    drop(client.worker.turns.take(LONG_COMMAND_BYTES < text.len()).await);
    let asked: Subscribe = read(text)?;
    if NAME_MAX_BYTES < asked.sub.len() {
        let text = format!("sub: the name is longer than {NAME_MAX_BYTES} bytes");
        return Err(Refusal::new(CloseCode::BadRequest, text));
    }
    if asked.topics.as_ref().is_some_and(Vec::is_empty) {
        let text = "topics: is empty: leave it out to follow all topics";
        return Err(Refusal::new(CloseCode::BadRequest, text));
    }
    let parameters = Parameters {
        topic: asked.topics.unwrap_or_default(),
        last_event_id: asked.last_event_id,
        since: asked.since,
        rewind: asked.rewind.map(|count| count.to_string()),
        latest: asked.latest,
        slow: asked.slow,
        filter: asked.filter,
        format: asked.format,
        presence: asked.presence,
        name: asked.name,
        ..Parameters::default()
    };
    Ok(Effect::Subscribe(asked.sub, Box::new(parameters)))
}

async fn renew(client: &SharedClient, text: &str) -> Result<Effect, Refusal> {
    let Renew { token } = read(text)?;
    Ok(Effect::Renew(Box::new(client.verify(&token).await?)))
}
