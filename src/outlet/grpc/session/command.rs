//! Commands of a client.

use crate::{
    auth::grant::Grant,
    outlet::{
        client::SharedClient,
        grpc::{
            message::encoded,
            proto::stream_events::{
                Auth, Command, Error, Ok as Done, Record, Renew, Subscribe, SubscribeRequest,
                Unsubscribe, command::Command as Kind, record::Record as RecordKind,
            },
            publish, record,
            status::{Code, Status},
        },
    },
};
use bytes::Bytes;
use prost::Message as _;

/// Longest name of a stream, and longest `ref`, in bytes.
const NAME_MAX_BYTES: usize = 128;
/// Length of a request for a stream, in bytes, from which on it waits for a turn: see
/// [`Turns`](crate::stream::turns::Turns).
pub(in crate::outlet::grpc) const LONG_REQUEST_BYTES: usize = 512;

/// Command that was checked, and the `ref` of its answer.
#[derive(Debug)]
pub(super) struct CommandResult {
    pub(super) reference: String,
    pub(super) result: Result<Effect, Status>,
}

/// Action that the session performs after a command was checked. It does not wait.
#[derive(Debug)]
pub(super) enum Effect {
    /// Opens a stream with a name.
    Subscribe(String, SubscribeRequest),
    /// Ends the stream with a name.
    Unsubscribe(String),
    /// Extends the leases of all streams.
    Renew(Grant),
    /// Nothing: the command was carried out. Its answer has these fields.
    Answer(Done),
}

/// Checks a command, and carries out what has to wait for others.
pub(super) async fn run(client: SharedClient, command: Command) -> CommandResult {
    let Command { r#ref: reference, command } = command;
    let malformed = |text: &str| Err(Status::new(Code::InvalidArgument, text));
    if NAME_MAX_BYTES < reference.len() {
        let result = malformed("ref: is longer than 128 bytes");
        return CommandResult { reference: String::new(), result };
    }
    let result = match command {
        Some(Kind::Subscribe(Subscribe { sub, request })) => subscribe(&client, sub, request).await,
        Some(Kind::Unsubscribe(Unsubscribe { sub })) => Ok(Effect::Unsubscribe(sub)),
        Some(Kind::Renew(Renew { token })) => {
            client.verify(&token).await.map(Effect::Renew).map_err(Status::from)
        }
        Some(Kind::Publish(asked)) => publish(&client, asked).await,
        Some(Kind::Presence(asked)) => client
            .members(&asked.topic)
            .await
            .map(|(_, roster)| {
                let members = Some(record::members(&roster));
                Effect::Answer(Done { members, ..Done::default() })
            })
            .map_err(Status::from),
        None => malformed(
            "the command is empty or unknown: expected subscribe, unsubscribe, publish, renew or \
             presence",
        ),
    };
    CommandResult { reference, result }
}

async fn subscribe(
    client: &SharedClient,
    sub: String,
    request: Option<SubscribeRequest>,
) -> Result<Effect, Status> {
    client.count_request()?;
    if NAME_MAX_BYTES < sub.len() {
        return Err(Status::new(Code::InvalidArgument, "sub: is longer than 128 bytes"));
    }
    let request = request.unwrap_or_default();
    drop(client.worker.turns.take(LONG_REQUEST_BYTES < request.encoded_len()).await);
    Ok(Effect::Subscribe(sub, request))
}

async fn publish(
    client: &SharedClient,
    asked: crate::outlet::grpc::proto::stream_events::PublishRequest,
) -> Result<Effect, Status> {
    let publication = publish::publication(asked)?;
    let publisher = {
        let grant = client.grant()?;
        client.publish.publisher(grant.as_ref(), client.address)?
    };
    let id = client.publish.publish(&publisher, publication).await?;
    Ok(Effect::Answer(Done { published: Some(publish::response(id)), ..Done::default() }))
}

/// Encodes the answer to a command.
pub(super) fn answer(reference: String, result: Result<Done, Status>) -> Bytes {
    let record = match result {
        Ok(done) => RecordKind::Ok(Done { r#ref: reference, ..done }),
        Err(status) => RecordKind::Error(Error {
            r#ref: reference,
            code: status.code as i32,
            message: status.message,
            retry_ms: status.retry_ms.unwrap_or_default(),
        }),
    };
    encoded(&Record { sub: String::new(), record: Some(record) })
}

/// Returns the answer of `renew`.
pub(super) fn renewed(left: std::time::Duration) -> Done {
    Done { auth: Some(Auth { expires_in: left.as_secs() }), ..Done::default() }
}
