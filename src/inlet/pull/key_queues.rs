//! Queues of the messages that wait for an earlier message with the same ordering key.

use std::collections::{HashMap, VecDeque};

/// Ordering keys with a message that is being stored, and the messages that wait for it, in their
/// order. The holder limits the number of messages.
#[derive(Debug)]
pub(super) struct KeyQueues<T> {
    by_key: HashMap<String, VecDeque<T>>,
}

impl<T> Default for KeyQueues<T> {
    fn default() -> Self {
        Self { by_key: HashMap::new() }
    }
}

impl<T> KeyQueues<T> {
    /// Returns the message if it can be stored now. Otherwise keeps it until [`Self::end`] returns
    /// it.
    pub(super) fn begin(&mut self, key: Option<&str>, message: T) -> Option<T> {
        let Some(key) = key else { return Some(message) };
        if let Some(queue) = self.by_key.get_mut(key) {
            queue.push_back(message);
            return None;
        }
        self.by_key.insert(key.to_owned(), VecDeque::new());
        Some(message)
    }

    /// Ends a message with this key. Returns the next message with the key, which can be stored
    /// now.
    pub(super) fn end(&mut self, key: &str) -> Option<T> {
        let next = self.by_key.get_mut(key).and_then(VecDeque::pop_front);
        if next.is_none() {
            self.by_key.remove(key);
        }
        next
    }

    /// Ends a message with this key, and returns all that wait for it.
    pub(super) fn remove(&mut self, key: &str) -> VecDeque<T> {
        self.by_key.remove(key).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_message_of_a_key_is_stored_at_a_time() {
        let mut queues = KeyQueues::default();
        assert_eq!(queues.begin(None, 1), Some(1));
        assert_eq!(queues.begin(None, 2), Some(2));
        assert_eq!(queues.begin(Some("a"), 3), Some(3));
        assert_eq!(queues.begin(Some("a"), 4), None);
        assert_eq!(queues.begin(Some("b"), 5), Some(5));
        assert_eq!(queues.begin(Some("a"), 6), None);
        assert_eq!((queues.end("a"), queues.end("a"), queues.end("a")), (Some(4), Some(6), None));
        assert_eq!(queues.begin(Some("a"), 7), Some(7));
        assert_eq!(queues.begin(Some("b"), 8), None);
        assert_eq!(queues.remove("b"), [8]);
        assert!(queues.remove("b").is_empty());
        assert_eq!(queues.begin(Some("b"), 9), Some(9));
    }
}
