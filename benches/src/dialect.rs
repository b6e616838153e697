//! How the servers are spoken to.

use std::{fmt::Write as _, net::SocketAddr};

use base64::{Engine as _, engine::general_purpose::STANDARD};

/// A kind of server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Dialect {
    /// Stream Events: a wrapped Pub/Sub push in.
    Gateway,
    /// The same envelope and paths.
    Naive,
    /// The text itself is posted.
    Floor,
    /// nginx with nchan, on `/pub/{topic}` and `/sub/{topic}`.
    Nchan,
}

/// A server.
#[derive(Debug, Clone)]
pub struct Target {
    pub dialect: Dialect,
    pub address: SocketAddr,
    /// Sent with each push.
    pub token: Option<String>,
    /// Attributes of each message for the gateway, as a JSON object.
    pub attributes: Option<String>,
    /// Filter of each stream of the gateway, percent-encoded.
    pub filter: Option<String>,
}

impl Target {
    /// The request for a stream on topics.
    pub fn get(&self, topics: impl Iterator<Item = usize>, id: Option<&[u8]>) -> Vec<u8> {
        let path = if self.dialect == Dialect::Nchan { "/sub/" } else { "/events?topic=" };
        let mut request = format!("GET {path}");
        for (at, topic) in topics.enumerate() {
            // A comma between names is shorter than `&topic=`, and a head has its limit.
            let comma = if at == 0 { "" } else { "," };
            let _ = write!(request, "{comma}topic{topic}");
        }
        if let Some(filter) = &self.filter {
            let _ = write!(request, "&filter={filter}");
        }
        let _ =
            write!(request, " HTTP/1.1\r\nHost: {}\r\nAccept: text/event-stream\r\n", self.address);
        let mut request = request.into_bytes();
        if let Some(id) = id {
            request.extend_from_slice(b"Last-Event-ID: ");
            request.extend_from_slice(id);
            request.extend_from_slice(b"\r\n");
        }
        request.extend_from_slice(b"\r\n");
        request
    }

    /// Writes the request that publishes a text into `request`. The message's id is unique.
    pub fn post(&self, topic: usize, text: &[u8], message: u32, request: &mut Vec<u8>) {
        let mut body = Vec::new();
        let (path, kind) = match self.dialect {
            Dialect::Gateway | Dialect::Naive => {
                wrap(text, message, self.attributes.as_deref(), &mut body);
                ("push", "application/json")
            }
            Dialect::Floor => ("push", "text/plain"),
            Dialect::Nchan => ("pub", "text/plain"),
        };
        let body = if body.is_empty() { text } else { &body };
        let mut head = format!(
            "POST /{path}/topic{topic} HTTP/1.1\r\nHost: {}\r\nContent-Type: {kind}\r\n\
             Content-Length: {}\r\n",
            self.address,
            body.len()
        );
        if let Some(token) = &self.token {
            let _ = write!(head, "Authorization: Bearer {token}\r\n");
        }
        request.clear();
        request.extend_from_slice(head.as_bytes());
        request.extend_from_slice(b"\r\n");
        request.extend_from_slice(body);
    }
}

/// As a push subscription wraps messages, with the fields that it writes in two spellings.
/// `attributes` is a JSON object.
pub fn wrap(text: &[u8], message: u32, attributes: Option<&str>, body: &mut Vec<u8>) {
    let data = STANDARD.encode(text);
    let id = format!("{}{message:09}", std::process::id());
    let attributes =
        attributes.map_or_else(String::new, |object| format!("\"attributes\":{object},"));
    let time = "2026-01-31T12:00:00.123Z";
    body.extend_from_slice(
        format!(
            r#"{{"message":{{{attributes}"data":"{data}","messageId":"{id}","message_id":"{id}","publishTime":"{time}","publish_time":"{time}"}},"subscription":"projects/bench/subscriptions/bench"}}"#
        )
        .as_bytes(),
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gateway_decodes_a_wrapped_message() {
        let mut body = Vec::new();
        wrap(b"hello", 7, Some(r#"{"k":"v"}"#), &mut body);
        let topic = "topic0".parse().ok();
        let message = stream_events::inlet::envelope::decode(&body, topic).unwrap();
        assert_eq!(message.data, "hello");
        assert_eq!(message.attributes["k"], "v");
        assert!(message.message_id.unwrap().ends_with("000000007"));
        assert!(message.publish_time_ms.is_some());
    }
}
