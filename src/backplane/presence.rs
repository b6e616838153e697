//! Presence of all replicas: what a replica writes and reads for one topic.

use std::time::Duration;

use crate::model::topic::Topic;

/// Time after which a replica counts as gone when it writes nothing.
pub const REPLICA_EXPIRY: Duration = Duration::from_secs(10);

/// Question for one topic: writes the report of this replica, and asks for those of the others.
#[derive(Debug, Clone)]
pub struct PresenceQuestion {
    /// Topic that is asked for.
    pub topic: Topic,
    /// Action on the report of this replica.
    pub write: PresenceWrite,
    /// Reports that this replica knows: the name of their replica, and the version.
    pub known: Vec<(String, u64)>,
}

/// Action on the report of this replica.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PresenceWrite {
    /// Leaves the stored report as it is.
    Keep,
    /// Stores this version of the report.
    Store(u64, String),
    /// Removes the report.
    Remove,
}

/// Answer to a [`PresenceQuestion`].
#[derive(Debug, Default)]
pub struct PresenceAnswer {
    /// Version of the stored report of this replica. `None` if there is none.
    pub stored: Option<u64>,
    /// Reports of the other replicas that are alive.
    pub others: Vec<StoredReport>,
}

/// Report of another replica.
#[derive(Debug)]
pub struct StoredReport {
    /// Name of the replica.
    pub replica: String,
    /// Version of the report.
    pub version: u64,
    /// Text of the report. `None` if it is known, or if the answer would be too large with it.
    pub report: Option<String>,
}
