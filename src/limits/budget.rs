//! Memory that many may take from, up to a limit that they share.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

/// So many bytes for all together.
#[derive(Debug)]
pub struct Budget {
    bytes: AtomicUsize,
    max: usize,
}

/// A part of a budget, which is given back when it is dropped.
#[derive(Debug)]
pub struct Claim {
    budget: Arc<Budget>,
    bytes: usize,
}

impl Budget {
    /// Nothing of it is taken yet.
    pub fn new(max: usize) -> Arc<Self> {
        Arc::new(Self { bytes: AtomicUsize::new(0), max })
    }

    /// How many bytes are taken.
    pub fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// A claim of nothing, which can grow.
    pub fn claim(self: &Arc<Self>) -> Claim {
        Claim { budget: Arc::clone(self), bytes: 0 }
    }
}

impl Claim {
    /// Takes more. Returns whether there was as much. If not, nothing was taken, and who asks for
    /// less at the same time may still get it.
    pub fn grow(&mut self, by: usize) -> bool {
        let fits = |taken: usize| taken.checked_add(by).filter(|taken| *taken <= self.budget.max);
        let taken = self.budget.bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits);
        self.bytes += if taken.is_ok() { by } else { 0 };
        taken.is_ok()
    }

    /// How many bytes it has taken.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Gives back what it has taken.
    pub fn release(&mut self) {
        let bytes = std::mem::take(&mut self.bytes);
        self.budget.bytes.fetch_sub(bytes, Ordering::Relaxed);
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
    fn who_gets_nothing_takes_nothing() {
        let budget = Budget::new(10);
        let (mut one, mut other) = (budget.claim(), budget.claim());
        assert!(one.grow(8) && !other.grow(3));
        assert_eq!((budget.bytes(), other.bytes()), (8, 0));
        assert!(other.grow(2) && other.grow(0) && one.grow(0));
        assert!(!one.grow(usize::MAX), "and nothing overflows");
        drop(one);
        assert_eq!(budget.bytes(), 2);
    }
}
