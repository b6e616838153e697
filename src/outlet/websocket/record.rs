//! Records: the JSON objects that the gateway sends, one in each text message.

use bytes::{Bytes, BytesMut};
use serde::Serialize;
use serde_json::{Map, Value};

use super::frame::{text_message, write_close, write_ping};
use crate::{
    model::control::{Control, End},
    outlet::{
        client::refusal::{CloseCode, Refusal},
        format::control::{
            AuthData, Checkpoint, EndData, Ended, FoldedData, GapData, OpenData, Opened,
            PresenceData, json,
        },
    },
};

/// Record with its type, and the name of the stream that it is about.
#[derive(Serialize)]
struct Record<'a, D> {
    r#type: &'static str,
    /// Name of the stream. `None` for the stream of the query, whose name is empty.
    #[serde(skip_serializing_if = "Option::is_none")]
    sub: Option<&'a str>,
    #[serde(flatten)]
    data: D,
}

/// Data of the `end` of a refused connection.
#[derive(Serialize)]
struct Refused<'a> {
    reason: &'static str,
    detail: &'a str,
    /// Milliseconds after which to reconnect. `None` if the same request is refused again.
    #[serde(skip_serializing_if = "Option::is_none")]
    retry: Option<u64>,
}

/// Data of `error`.
#[derive(Serialize)]
struct Failed<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    r#ref: Option<&'a Value>,
    status: u16,
    title: &'a str,
    detail: &'a str,
    /// Milliseconds after which the same command can succeed.
    #[serde(skip_serializing_if = "Option::is_none")]
    retry: Option<u64>,
}

/// Data of `ok`.
#[derive(Serialize)]
struct Done<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    r#ref: Option<&'a Value>,
    #[serde(flatten)]
    fields: &'a Map<String, Value>,
}

/// Encodes a control message of the stream `sub`. Does not close the connection at its end.
pub(super) fn control(sub: &str, control: &Control) -> Bytes {
    match control {
        Control::Open(open) => {
            let (id, data) = (open.id.to_string(), OpenData::of(open));
            message("open", sub, &Opened { id, data, retry: open.retry_ms })
        }
        Control::Gap(gap) => message("gap", sub, &GapData::of(gap)),
        Control::Presence(presence) => message("presence", sub, &PresenceData::of(presence)),
        Control::Folded(folded) => message("folded", sub, &FoldedData::of(folded)),
        Control::Auth(left) => message("auth", sub, &AuthData { expires_in: left.as_secs() }),
        Control::Checkpoint(id) => {
            // In silence, a checkpoint stands for a keep-alive: it needs an answer too.
            let record = message("checkpoint", sub, &Checkpoint { id: id.to_string() });
            let mut out = BytesMut::from(record);
            write_ping(&mut out);
            out.freeze()
        }
        Control::KeepAlive | Control::Waiting => ping(),
        Control::End(end) => {
            message("end", sub, &Ended { data: EndData::of(end), retry: end.retry_ms })
        }
    }
}

/// Returns a ping.
pub(super) fn ping() -> Bytes {
    let mut out = BytesMut::new();
    write_ping(&mut out);
    out.freeze()
}

/// Encodes the end of the last stream of a connection, and the close frame.
pub(super) fn end_and_close(sub: &str, end: &End) -> Bytes {
    let mut out = BytesMut::from(control(sub, &Control::End(*end)));
    write_close(&mut out, Some(CloseCode::of(end.reason).number()), end.reason.as_str());
    out.freeze()
}

/// Encodes the `end` of a connection that is refused.
pub(super) fn refused(refusal: &Refusal) -> Bytes {
    let Refusal { reason, detail, retry_ms: retry, .. } = refusal;
    message("end", "", &Refused { reason, detail, retry: *retry })
}

/// Encodes the answer to a command that was refused.
pub(super) fn failed(reference: Option<&Value>, refusal: &Refusal) -> Bytes {
    let status = refusal.status();
    let failed = Failed {
        r#ref: reference,
        status: status.as_u16(),
        title: status.canonical_reason().unwrap_or("Error"),
        detail: &refusal.detail,
        retry: refusal.retry_ms,
    };
    message("error", "", &failed)
}

/// Encodes the answer to a command that was carried out, with `fields`.
pub(super) fn done(reference: Option<&Value>, fields: &Map<String, Value>) -> Bytes {
    message("ok", "", &Done { r#ref: reference, fields })
}

/// Encodes a record.
fn message(kind: &'static str, sub: &str, data: &impl Serialize) -> Bytes {
    let sub = (!sub.is_empty()).then_some(sub);
    text_message(json(&Record { r#type: kind, sub, data }).as_bytes())
}
