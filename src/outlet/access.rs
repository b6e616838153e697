//! Who may read what.

use crate::{hub::Topics, message::Topic};

/// What a reader may see. A closed set: one variant for each way to decide it.
#[derive(Debug, Clone)]
pub enum Access {
    /// Anyone may read every topic that is served: all, or those of the list.
    Anonymous { served: Vec<Topic> },
}

/// The topic that a reader asked for and may not have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotServed(pub Topic);

impl Access {
    /// Checks what a reader asks for.
    ///
    /// # Errors
    /// With the first topic that is not served.
    pub fn check(&self, asked: &Topics) -> Result<(), NotServed> {
        let Self::Anonymous { served } = self;
        if served.is_empty() {
            return Ok(());
        }
        let unserved = asked.names().iter().find(|topic| !served.contains(topic));
        unserved.map_or(Ok(()), |topic| Err(NotServed(topic.clone())))
    }
}
