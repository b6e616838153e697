//! Trailers: the headers after the body of a response.

use std::cell::RefCell;

use http::HeaderMap;

/// Trailers of one response. A handler finds them in the extensions of its request, and the body of
/// its response sets them before it ends.
#[derive(Debug, Default)]
pub(crate) struct Trailers(RefCell<Option<HeaderMap>>);

impl Trailers {
    /// Sets the trailers. They are sent when the body has ended.
    pub(crate) fn set(&self, trailers: HeaderMap) {
        self.0.replace(Some(trailers));
    }

    /// Returns the trailers, if they were set.
    pub(super) fn take(&self) -> Option<HeaderMap> {
        self.0.take()
    }
}
