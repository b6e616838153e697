//! Budget of bytes that several holders share.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

/// Limit on the bytes of all its claims together.
#[derive(Debug)]
pub struct Budget {
    /// Bytes of all claims.
    bytes: AtomicUsize,
    /// Largest value of `bytes`.
    max: usize,
}

/// Part of a [`Budget`]. Dropping the claim returns its bytes.
#[derive(Debug)]
pub struct Claim {
    budget: Arc<Budget>,
    bytes: usize,
}

impl Budget {
    /// Creates a budget of `max` bytes without claims.
    pub fn new(max: usize) -> Arc<Self> {
        Arc::new(Self { bytes: AtomicUsize::new(0), max })
    }

    /// Returns the number of bytes of all claims.
    pub fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Creates an empty claim.
    pub fn claim(self: &Arc<Self>) -> Claim {
        Claim { budget: Arc::clone(self), bytes: 0 }
    }
}

impl Claim {
    /// Adds `by` bytes to the claim. Returns false, and adds nothing, if that would exceed the
    /// budget. A concurrent call for fewer bytes can still succeed.
    #[must_use]
    pub fn grow(&mut self, by: usize) -> bool {
        let fits = |taken: usize| taken.checked_add(by).filter(|taken| *taken <= self.budget.max);
        let taken = self.budget.bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits);
        self.bytes += if taken.is_ok() { by } else { 0 };
        taken.is_ok()
    }

    /// Adds `by` bytes to the claim, even beyond the budget, if no other claim has any. Returns
    /// false otherwise.
    #[must_use]
    pub fn grow_alone(&mut self, by: usize) -> bool {
        let (from, to) = (self.bytes, self.bytes.saturating_add(by));
        let taken =
            self.budget.bytes.compare_exchange(from, to, Ordering::Relaxed, Ordering::Relaxed);
        self.bytes = if taken.is_ok() { to } else { from };
        taken.is_ok()
    }

    /// Returns the number of bytes of this claim.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Returns `by` bytes of this claim to the budget, or all if the claim has fewer.
    pub fn shrink(&mut self, by: usize) {
        let by = by.min(self.bytes);
        self.bytes -= by;
        self.budget.bytes.fetch_sub(by, Ordering::Relaxed);
    }

    /// Returns all bytes of this claim to the budget.
    pub fn release(&mut self) {
        self.shrink(self.bytes);
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.release();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_claim_takes_nothing() {
        let budget = Budget::new(10);
        let (mut one, mut other) = (budget.claim(), budget.claim());
        assert!(one.grow(8) && !other.grow(3));
        assert_eq!((budget.bytes(), other.bytes()), (8, 0));
        assert!(other.grow(2) && other.grow(0) && one.grow(0));
        assert!(!one.grow(usize::MAX), "the sum does not overflow");
        drop(one);
        assert_eq!(budget.bytes(), 2);
    }

    #[test]
    fn a_claim_may_exceed_the_budget_only_alone() {
        let budget = Budget::new(10);
        let (mut one, mut other) = (budget.claim(), budget.claim());
        assert!(one.grow(1) && one.grow_alone(19) && !other.grow_alone(1) && !other.grow(1));
        assert_eq!((budget.bytes(), one.bytes(), other.bytes()), (20, 20, 0));
        drop(one);
        assert!(other.grow_alone(11));
        drop(other);
        assert_eq!(budget.bytes(), 0);
    }
}
