//! Names of the keys in Redis.

/// Names of the keys. All contain one hash tag, `{prefix}`, since Redis requires the keys of a
/// script to be in one slot.
#[derive(Debug)]
pub(crate) struct Keys {
    /// Stream of the events.
    pub(crate) log: String,
    /// Hash with the newest id of the log and the server that assigned it.
    pub(crate) state: String,
    /// Stream of the renewals.
    pub(crate) renewals: String,
    /// Sorted set of the replicas by the time of their last call for presence.
    pub(crate) replicas: String,
    prefix: String,
}

impl Keys {
    /// Creates the names that begin with `{prefix}`.
    pub(crate) fn new(prefix: &str) -> Self {
        let key = |name| format!("{{{prefix}}}:{name}");
        Self {
            log: key("log"),
            state: key("state"),
            renewals: key("renewals"),
            replicas: key("presence-replicas"),
            prefix: prefix.to_owned(),
        }
    }

    /// Returns the key of the hash with the reports of all replicas about the members of a topic.
    pub(crate) fn presence(&self, topic: &str) -> String {
        format!("{{{}}}:presence:{topic}", self.prefix)
    }

    /// Returns the key of a ticket, whose value is the grant.
    pub(crate) fn ticket(&self, name: &str) -> String {
        format!("{{{}}}:ticket:{name}", self.prefix)
    }

    /// Returns the key of the sorted set of a holder's tickets by their expiry.
    pub(crate) fn tickets_of_holder(&self, holder: &str) -> String {
        format!("{{{}}}:tickets-of:{holder}", self.prefix)
    }

    /// Returns the key that marks a holder that was refused a ticket within the last second.
    pub(crate) fn holder_refused(&self, holder: &str) -> String {
        format!("{{{}}}:tickets-refused:{holder}", self.prefix)
    }

    /// Returns the deduplication key of a message, whose value is the id of its event.
    pub(crate) fn dedup(&self, topic: &str, message_id: &str) -> String {
        // Without `format!`, which takes longer than all else that is done for a key.
        ["{", &self.prefix, "}:claim:", topic, ":", message_id].concat()
    }
}
