//! Heads of requests that are coming in: memory that anyone can have the gateway keep, without a
//! token. Each may have a little, all together a budget.

use std::sync::Arc;

use prometheus::IntCounter;

use crate::limits::budget::{Budget, Claim};

/// What heads that are coming in may take, over all connections.
#[derive(Debug, Clone)]
pub struct HeadBudget {
    budget: Arc<Budget>,
    /// Counts connections that were ended for what they sent as a head, or for want of room.
    refused: IntCounter,
}

/// What has come in of one head.
#[derive(Debug)]
pub struct HeadClaim {
    head_budget: HeadBudget,
    bytes: usize,
    claim: Claim,
}

/// All of them together, beyond what each has for nothing.
pub const HEADS_MAX_BYTES: usize = 64 * 1024 * 1024;
/// Most heads are no larger, and a connection's buffer is no smaller.
const FREE_BYTES: usize = 8 * 1024;

impl HeadBudget {
    /// None is coming in yet.
    pub fn new(max_bytes: usize, refused: IntCounter) -> Self {
        Self { budget: Budget::new(max_bytes), refused }
    }

    /// One of which nothing has come in.
    pub fn head(&self) -> HeadClaim {
        HeadClaim { head_budget: self.clone(), bytes: 0, claim: self.budget.claim() }
    }
}

impl HeadClaim {
    /// More of it has come in. Returns whether there is room for that.
    pub fn grow(&mut self, by: usize) -> bool {
        let free = FREE_BYTES.saturating_sub(self.bytes);
        self.bytes += by;
        let has_room = self.claim.grow(by.saturating_sub(free));
        if !has_room {
            self.head_budget.refused.inc();
        }
        has_room
    }

    /// Takes what so many bytes need in place of what it had. Returns whether there is room.
    pub fn hold(&mut self, bytes: usize) -> bool {
        if bytes < self.bytes {
            self.end();
        }
        self.grow(bytes - self.bytes)
    }

    /// Counts a head that is refused for its size or form.
    pub fn refuse(&self) {
        self.head_budget.refused.inc();
    }

    /// It is in, or was none.
    pub fn end(&mut self) {
        self.bytes = 0;
        self.claim.release();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_heads_share_a_budget_and_small_ones_need_none() {
        let head_budget = HeadBudget::new(10_000, IntCounter::new("refused", "refused").unwrap());
        let mut small: Vec<_> = (0..100).map(|_| head_budget.head()).collect();
        assert!(small.iter_mut().all(|head| head.grow(4_000) && head.grow(4_000)));
        let (mut one, mut other) = (head_budget.head(), head_budget.head());
        assert!(one.grow(FREE_BYTES + 9_000));
        assert!(!other.grow(FREE_BYTES + 2_000));
        assert_eq!(head_budget.refused.get(), 1);
        drop(other);
        one.end();
        assert!(one.grow(FREE_BYTES + 10_000), "all of it was given back");
    }
}
