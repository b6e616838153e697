//! How much one reader, or one address, may have at once.

use std::{net::IpAddr, sync::Arc};

use crate::{
    auth::grant::Holder,
    limits::concurrency::{Counts, One},
};

/// The limits of streams beside the total.
#[derive(Debug)]
pub struct StreamLimits {
    by_holder: Arc<Counts<Holder>>,
    by_address: Arc<Counts<IpAddr>>,
}

/// Which limit was met: as in a metric's label.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Met {
    Subject,
    Address,
}

impl Met {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Subject => "subject",
            Self::Address => "address",
        }
    }

    /// What its reader is told.
    pub fn text(self) -> &'static str {
        match self {
            Self::Subject => {
                "this subject, or this token without a subject (sub), has as many streams as it may \
                 (--streams-per-subject)"
            }
            Self::Address => "this address has as many streams as it may (--streams-per-address)",
        }
    }
}

/// A stream is counted until this is dropped.
#[derive(Debug)]
pub struct Counted {
    _holder: Option<One<Holder>>,
    _address: Option<One<IpAddr>>,
}

impl StreamLimits {
    /// 0 is no limit.
    pub fn new(per_subject: usize, per_address: usize) -> Self {
        Self { by_holder: Counts::new(per_subject), by_address: Counts::new(per_address) }
    }

    /// Counts one more stream.
    ///
    /// # Errors
    /// With the limit that it would go beyond.
    pub fn one_more(
        &self,
        address: Option<IpAddr>,
        holder: Option<&Holder>,
    ) -> Result<Option<Box<Counted>>, Met> {
        let holder = self.by_holder.one_more(holder.cloned()).map_err(|_| Met::Subject)?;
        let address = self.by_address.one_more(address).map_err(|_| Met::Address)?;
        let is_counted = holder.is_some() || address.is_some();
        Ok(is_counted.then(|| Box::new(Counted { _holder: holder, _address: address })))
    }
}
