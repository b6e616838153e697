//! Store: the rings of all topics and the order over them, protected by the hub's one lock.

pub(crate) mod dedup;
pub(crate) mod read;
pub(crate) mod ring;
pub(crate) mod rings;
pub(crate) mod timeline;
pub(crate) mod topic;
