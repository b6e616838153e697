//! Limits of the streams of one reader and of one address.

use std::{net::IpAddr, sync::Arc};

use crate::{
    auth::grant::Holder,
    limits::concurrency::{ConcurrencyLimit, Permit},
};

/// Limits of streams in addition to the limit of all streams.
#[derive(Debug)]
pub struct StreamLimits {
    by_holder: Arc<ConcurrencyLimit<Holder>>,
    by_address: Arc<ConcurrencyLimit<IpAddr>>,
}

/// Limit of streams that was reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum StreamLimitError {
    /// Limit for each subject, or for each token without one (`--streams-per-subject`).
    #[error(
        "this subject, or this token without a subject (sub), has reached its limit of open streams \
         (--streams-per-subject)"
    )]
    Subject,
    /// Limit for each client address (`--streams-per-address`).
    #[error("this address has reached its limit of open streams (--streams-per-address)")]
    Address,
}

impl StreamLimitError {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Subject => "subject",
            Self::Address => "address",
        }
    }
}

/// Permit of one stream. Dropping the permit returns it.
#[derive(Debug)]
pub struct StreamPermit {
    _holder: Option<Permit<Holder>>,
    _address: Option<Permit<IpAddr>>,
}

impl StreamLimits {
    /// Creates the limits. 0 means no limit.
    pub fn new(per_subject: usize, per_address: usize) -> Self {
        Self {
            by_holder: ConcurrencyLimit::new(per_subject),
            by_address: ConcurrencyLimit::new(per_address),
        }
    }

    /// Takes a permit for a stream of `holder` at `address`. `None` for either is not limited.
    ///
    /// # Errors
    /// Returns the limit that was reached.
    pub fn try_acquire(
        &self,
        address: Option<IpAddr>,
        holder: Option<&Holder>,
    ) -> Result<Option<Box<StreamPermit>>, StreamLimitError> {
        let holder =
            self.by_holder.try_acquire(holder.cloned()).map_err(|_| StreamLimitError::Subject)?;
        let address =
            self.by_address.try_acquire(address).map_err(|_| StreamLimitError::Address)?;
        let is_counted = holder.is_some() || address.is_some();
        Ok(is_counted.then(|| Box::new(StreamPermit { _holder: holder, _address: address })))
    }
}
