//! Renewals of streams, which the backplane sends to all replicas.

/// Request to extend a stream to the expiry of a newer grant. The replica that serves the stream
/// carries it out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Renewal {
    /// Name of the stream, from its `stream-open` event.
    pub stream: String,
    /// Grant in the text form that `auth` writes and reads.
    pub grant: String,
}
