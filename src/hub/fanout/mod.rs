//! Fan-out: passes a stored event to the subscribers on every worker.

pub(crate) mod batch;
pub(crate) mod group;
pub(crate) mod groups;
pub(crate) mod hidden;
pub(crate) mod notifier;
pub(crate) mod shard;
pub(crate) mod shared_filter;
pub(crate) mod subscriber;
