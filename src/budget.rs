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
    /// Takes more. Returns whether there was as much; what was taken is given back in either case.
    pub fn grow(&mut self, by: usize) -> bool {
        self.bytes += by;
        let before = self.budget.bytes.fetch_add(by, Ordering::Relaxed);
        before + by <= self.budget.max
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
