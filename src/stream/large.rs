//! Events that are given out in slices.

use std::sync::{self, Arc};

use crate::{
    limits::budget::{Budget, Claim},
    model::event::Event,
};

/// Events that slow readers are in the middle of, over all streams, may have so many bytes that
/// their rings have let go of: a reader that takes longer for an event than its ring holds it gets
/// it all the same, as long as not too many do.
pub const SLOW_MAX_BYTES: usize = 64 * 1024 * 1024;

/// An event that is given out in slices.
#[derive(Debug)]
pub enum LargeEvent {
    /// Its ring may let go of it, and it stays.
    Claimed(Arc<Event>, Claim),
    /// It goes with its ring.
    Weak(sync::Weak<Event>),
}

impl LargeEvent {
    pub fn new(event: &Arc<Event>, slow: &Arc<Budget>) -> Self {
        let mut claim = slow.claim();
        if claim.grow(event.size()) {
            Self::Claimed(Arc::clone(event), claim)
        } else {
            Self::Weak(Arc::downgrade(event))
        }
    }

    pub fn event(&self) -> Option<Arc<Event>> {
        match self {
            Self::Claimed(event, _) => Some(Arc::clone(event)),
            Self::Weak(event) => event.upgrade(),
        }
    }
}
