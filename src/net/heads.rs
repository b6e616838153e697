//! Limits the memory of incomplete request heads. Clients without a token can make the gateway keep
//! these bytes, so each head has a small free part and all heads share one budget.

use std::sync::Arc;

use prometheus::IntCounter;

use crate::limits::budget::{Budget, Claim};

/// Memory budget of the incomplete request heads of all connections.
#[derive(Debug, Clone)]
pub(crate) struct HeadBudget {
    budget: Arc<Budget>,
    /// Counter of the heads that were refused, for their form or because the budget was used up.
    refused: IntCounter,
}

/// Share of one connection in the budget, for its incomplete head.
#[derive(Debug)]
pub(crate) struct HeadClaim {
    head_budget: HeadBudget,
    /// Bytes of the head that are received.
    bytes: usize,
    /// Part of `bytes` that is not free.
    claim: Claim,
}

/// Budget of all heads together, beyond the free part of each.
pub(crate) const HEADS_MAX_BYTES: usize = 64 * 1024 * 1024;
/// Free part of each head. Most heads are smaller, and the buffer of a connection is not.
const FREE_BYTES: usize = 8 * 1024;

impl HeadBudget {
    /// Creates a budget of `max_bytes`. `refused` counts refused heads.
    pub(crate) fn new(max_bytes: usize, refused: IntCounter) -> Self {
        Self { budget: Budget::new(max_bytes), refused }
    }

    /// Returns the claim of one connection, without bytes.
    pub(crate) fn claim(&self) -> HeadClaim {
        HeadClaim { head_budget: self.clone(), bytes: 0, claim: self.budget.claim() }
    }
}

impl HeadClaim {
    /// Adds `by` bytes to the head. Returns false, and counts a refusal, if the budget is used up.
    pub(crate) fn try_grow(&mut self, by: usize) -> bool {
        let free = FREE_BYTES.saturating_sub(self.bytes);
        self.bytes += by;
        let has_room = self.claim.grow(by.saturating_sub(free));
        if !has_room {
            self.head_budget.refused.inc();
        }
        has_room
    }

    /// Counts a head that is refused for its size or form.
    pub(crate) fn count_refusal(&self) {
        self.head_budget.refused.inc();
    }

    /// Returns all bytes to the budget: the head is complete, or its connection sent none.
    pub(crate) fn release(&mut self) {
        self.bytes = 0;
        self.claim.release();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_heads_share_the_budget_and_small_heads_are_free() {
        let head_budget = HeadBudget::new(10_000, IntCounter::new("refused", "refused").unwrap());
        let mut small: Vec<_> = (0..100).map(|_| head_budget.claim()).collect();
        assert!(small.iter_mut().all(|head| head.try_grow(4_000) && head.try_grow(4_000)));
        let (mut one, mut other) = (head_budget.claim(), head_budget.claim());
        assert!(one.try_grow(FREE_BYTES + 9_000));
        assert!(!other.try_grow(FREE_BYTES + 2_000));
        assert_eq!(head_budget.refused.get(), 1);
        drop(other);
        one.release();
        assert!(one.try_grow(FREE_BYTES + 10_000), "the whole budget was returned");
    }
}
