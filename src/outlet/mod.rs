//! How events go out: who may read what, the stream's blocks, and the stream.

pub mod access;
pub mod blocks;
pub mod page;
pub mod query;
pub mod sse;
pub mod stream;

use std::{sync::Arc, time::Duration};

use crate::{budget::Budget, hub::Hub, metrics::Metrics, outlet::access::Access};

/// What every stream needs.
#[derive(Debug)]
pub struct Outlet {
    pub hub: Hub,
    pub access: Access,
    pub metrics: Metrics,
    /// For events that slow readers are in the middle of.
    pub slow: Arc<Budget>,
    pub keep_alive: Duration,
    pub stream_age_max: Duration,
}
