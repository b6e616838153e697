//! `publish`: sends a message to a gateway in the form that a Pub/Sub push subscription uses.

use std::{io::Read as _, process::ExitCode, time::Duration};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use clap::{Arg, ArgAction, ArgMatches, Command, error::ErrorKind};
use serde_json::{Map, json};

use crate::{
    cli::{
        block_on,
        client::{client, with_scheme},
    },
    clock,
    http::problem::error_chain,
    model::topic::Topic,
};

/// Limit on the time of the request.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Message and the gateway that receives it.
#[derive(Debug)]
pub struct Publish {
    /// URL of the gateway.
    url: String,
    /// Topic of the message.
    topic: Topic,
    /// Data of the message. `None` if standard input has it.
    data: Option<String>,
    /// Attributes: key and value.
    attributes: Vec<(String, String)>,
    /// Ordering key.
    ordering_key: Option<String>,
    /// Message id. `None` for a random one.
    message_id: Option<String>,
    /// True for the form without an envelope: data as the body, metadata as headers.
    unwrapped: bool,
    /// Push token.
    token: Option<String>,
}

/// Returns the subcommand and its arguments.
pub fn command() -> Command {
    let option = |name: &'static str, value: &'static str, help: &'static str| {
        Arg::new(name).long(name).value_name(value).help(help)
    };
    Command::new("publish")
        .about("Send a message to a gateway, as a Pub/Sub push subscription does")
        .after_help(
            "With a publisher's token, send POST /publish/TOPIC instead, for example with curl: see \
             docs/publishing.md",
        )
        .arg(option("topic", "NAME", "Topic of the message").required(true))
        .arg(
            Arg::new("data")
                .value_name("DATA")
                .help("Data of the message. Without it, standard input is read"),
        )
        .arg(option("url", "URL", "URL of the gateway").default_value("http://127.0.0.1:8080"))
        .arg(
            option(
                "attribute",
                "KEY=VALUE",
                "Attribute of the message. event=NAME sets the type of the event",
            )
            .action(ArgAction::Append),
        )
        .arg(option("ordering-key", "KEY", "Ordering key of the message"))
        .arg(option("message-id", "ID", "Id of the message. Without it, a new one is made"))
        .arg(option("token", "JWT", "Push token, for a gateway with --push-auth oidc"))
        .arg(Arg::new("unwrapped").long("unwrapped").action(ArgAction::SetTrue).help(
            "Send the data as the body and the metadata as headers, as --push-no-wrapper does",
        ))
}

impl Publish {
    /// Reads the arguments.
    pub(super) fn read(given: &ArgMatches) -> Result<Self, clap::Error> {
        let bad = |problem: String| command().error(ErrorKind::ValueValidation, problem);
        let text = |name: &str| given.get_one::<String>(name).cloned();
        let topic = text("topic").unwrap_or_default();
        let topic = topic.parse().map_err(|err| bad(format!("--topic: {err}")))?;
        let mut attributes = Vec::new();
        for pair in given.get_many::<String>("attribute").into_iter().flatten() {
            let (key, value) = pair.split_once('=').ok_or_else(|| {
                bad(format!("--attribute: {pair:?} is not an attribute. Expected KEY=VALUE"))
            })?;
            attributes.push((key.to_owned(), value.to_owned()));
        }
        Ok(Self {
            url: with_scheme(&text("url").unwrap_or_default()),
            topic,
            data: text("data"),
            attributes,
            ordering_key: text("ordering-key"),
            message_id: text("message-id"),
            unwrapped: given.get_flag("unwrapped"),
            token: text("token"),
        })
    }

    /// Sends the message with this data.
    async fn post(&self, data: Vec<u8>) -> Result<reqwest::Response, reqwest::Error> {
        // `%` is the only character of topic names that has a meaning in a path.
        let topic = self.topic.as_str().replace('%', "%25");
        let url = format!("{}/push/{topic}", self.url.trim_end_matches('/'));
        let client = client(&self.url).timeout(TIMEOUT).build()?;
        // Pub/Sub's message ids are numbers of this size.
        let message_id =
            self.message_id.clone().unwrap_or_else(|| rand::random::<u64>().to_string());
        let subscription = format!("projects/local/subscriptions/{}", self.topic);
        let time = i64::try_from(clock::now_ms()).unwrap_or(i64::MAX);
        let publish_time = jiff::Timestamp::from_millisecond(time).unwrap_or_default().to_string();
        let mut request = client.post(url);
        if let Some(token) = &self.token {
            request = request.bearer_auth(token);
        }
        if self.unwrapped {
            request = request
                .header("x-goog-pubsub-subscription-name", subscription)
                .header("x-goog-pubsub-message-id", message_id)
                .header("x-goog-pubsub-publish-time", publish_time);
            if let Some(key) = &self.ordering_key {
                request = request.header("x-goog-pubsub-ordering-key", key);
            }
            for (key, value) in &self.attributes {
                request = request.header(key, value);
            }
            return request.body(data).send().await;
        }
        let attributes: Map<_, _> =
            self.attributes.iter().map(|(key, value)| (key.clone(), json!(value))).collect();
        let mut message = json!({
            "data": STANDARD.encode(data),
            "attributes": attributes,
            "messageId": message_id, "message_id": message_id,
            "publishTime": publish_time, "publish_time": publish_time,
        });
        if let (Some(key), Some(message)) = (&self.ordering_key, message.as_object_mut()) {
            message.insert("orderingKey".to_owned(), json!(key));
        }
        let envelope = json!({ "message": message, "subscription": subscription });
        let request = request.header(reqwest::header::CONTENT_TYPE, "application/json");
        request.body(envelope.to_string()).send().await
    }
}

/// Sends the message. Prints the reason if that fails.
#[expect(clippy::print_stderr, reason = "the reason is the output of the command")]
pub fn run(publish: &Publish) -> ExitCode {
    match publish.data.clone().map_or_else(standard_input, |text| Ok(text.into_bytes())) {
        Ok(data) => match block_on(send(publish, data)) {
            Ok(Ok(())) => return ExitCode::SUCCESS,
            Ok(Err(problem)) => eprintln!("{problem}"),
            Err(err) => eprintln!("{err}"),
        },
        Err(err) => eprintln!("standard input: {err}"),
    }
    ExitCode::FAILURE
}

/// Reads standard input to its end.
fn standard_input() -> std::io::Result<Vec<u8>> {
    let mut data = Vec::new();
    std::io::stdin().read_to_end(&mut data)?;
    Ok(data)
}

/// Sends the message. Returns a text that says what is wrong.
async fn send(publish: &Publish, data: Vec<u8>) -> Result<(), String> {
    let response = publish.post(data).await.map_err(|err| {
        let hint = "\nIs a gateway running there? Start one with: stream-events dev";
        format!("{}{}", error_chain(&err), if err.is_connect() { hint } else { "" })
    })?;
    let status = response.status();
    if status.is_success() {
        return Ok(());
    }
    let text = response.text().await.unwrap_or_default();
    Err(format!("the gateway answered {status}: {text}"))
}
