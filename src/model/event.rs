//! Events: published messages with their ids.

use std::{
    borrow::Cow,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use bytes::Bytes;

use crate::model::{
    event_id::EventId,
    frame::{DataForm, FrameDraft, data_of, head_of},
    message::Message,
    topic::Topic,
    trace_context::TraceContext,
};

/// Published message with its id. All readers share it.
#[derive(Debug)]
pub struct Event {
    /// Position in the order over all topics.
    pub id: EventId,
    /// Topic that the message was published to.
    pub topic: Topic,
    /// Time at which Pub/Sub received the message, in Unix milliseconds.
    pub publish_time_ms: Option<u64>,
    /// Frame in `text/event-stream`, from `id:` to the empty line.
    frame: Bytes,
    data_form: DataForm,
    /// True if the metadata has a trace. Kept here, so that the metadata of events without a trace
    /// is not read.
    is_traced: bool,
    message_id: Option<Box<str>>,
    /// Fields that few events have. `None` when an event has none of them, which takes one word.
    metadata: Option<Box<Metadata>>,
}

#[derive(Debug)]
struct Metadata {
    /// Attributes in order of their keys.
    attributes: Box<[(Box<str>, Box<str>)]>,
    ordering_key: Option<Box<str>>,
    /// Data that cannot be read back from the frame: text with CR.
    data: Option<Box<[u8]>>,
    /// Trace that the publisher records.
    trace: Option<Arc<MessageTrace>>,
}

/// Trace of a message whose publisher records it.
#[derive(Debug)]
pub struct MessageTrace {
    /// Context of the publisher's span.
    pub context: TraceContext,
    /// Topic of the message.
    pub topic: Topic,
    /// True after the event was given to a first reader.
    is_delivered: AtomicBool,
}

impl MessageTrace {
    /// Records that a reader is given the event. Returns true at the first call only.
    pub fn is_first_delivery(&self) -> bool {
        !self.is_delivered.swap(true, Ordering::Relaxed)
    }
}

/// Memory of an event in addition to its texts: its own fields, reference counts, the entries in
/// the ring and in the timeline, and the overhead of the allocator.
const EVENT_OVERHEAD_BYTES: usize = 240;
/// Memory of an attribute in addition to its texts.
const ATTRIBUTE_OVERHEAD_BYTES: usize = 64;
/// Memory of a trace.
const TRACE_BYTES: usize = 96;

impl Event {
    /// Returns the frame in `text/event-stream`.
    pub fn frame(&self) -> &Bytes {
        &self.frame
    }

    /// Returns the lines of the frame before the data: the id, and the type if there is one.
    pub fn frame_head(&self) -> &[u8] {
        head_of(&self.frame)
    }

    /// Returns the data as it was published. Data of one line is borrowed from the frame, so that
    /// it is not stored twice; other data is decoded from it.
    pub fn data(&self) -> Cow<'_, [u8]> {
        match self.metadata.as_ref().and_then(|metadata| metadata.data.as_deref()) {
            Some(data) => Cow::Borrowed(data),
            None => data_of(&self.frame, self.data_form),
        }
    }

    /// Returns Pub/Sub's id of the message, if it has one.
    pub fn message_id(&self) -> Option<&str> {
        self.message_id.as_deref()
    }

    /// Returns the ordering key, if there is one.
    pub fn ordering_key(&self) -> Option<&str> {
        self.metadata.as_ref()?.ordering_key.as_deref()
    }

    /// Returns the attributes in order of their keys.
    pub fn attributes(&self) -> impl Iterator<Item = (&str, &str)> {
        let attributes = self.metadata.as_ref().map_or(&[][..], |all| &all.attributes);
        attributes.iter().map(|(key, value)| (&**key, &**value))
    }

    /// Returns the value of an attribute, if the message has it.
    pub fn attribute(&self, key: &str) -> Option<&str> {
        let attributes = &self.metadata.as_ref()?.attributes;
        let at = attributes.binary_search_by(|(known, _)| (**known).cmp(key)).ok()?;
        attributes.get(at).map(|(_, value)| &**value)
    }

    /// Returns the trace of the message, if its publisher records it.
    pub fn trace(&self) -> Option<&Arc<MessageTrace>> {
        self.metadata.as_ref().filter(|_| self.is_traced)?.trace.as_ref()
    }

    /// Returns the bytes that limits count for this event.
    pub fn size(&self) -> usize {
        let metadata = self.metadata.as_deref().map_or(0, Metadata::size);
        let message_id = self.message_id.as_ref().map_or(0, |id| id.len());
        self.frame.len() + message_id + metadata + EVENT_OVERHEAD_BYTES
    }
}

impl Metadata {
    fn size(&self) -> usize {
        let attributes = self.attributes.iter();
        let attributes = attributes
            .map(|(key, value)| key.len() + value.len() + ATTRIBUTE_OVERHEAD_BYTES)
            .sum::<usize>();
        let key = self.ordering_key.as_ref().map_or(0, |key| key.len());
        let trace = self.trace.as_ref().map_or(0, |_| TRACE_BYTES);
        attributes + key + trace + self.data.as_ref().map_or(0, |data| data.len())
    }
}

/// Event without an id. All work that does not need the id is done here, outside the critical
/// section in which ids are assigned.
#[derive(Debug)]
pub struct Draft {
    topic: Topic,
    publish_time_ms: Option<u64>,
    frame: FrameDraft,
    message_id: Option<Box<str>>,
    metadata: Option<Box<Metadata>>,
}

impl Draft {
    /// Creates an event from a message and encodes its frame. The attribute `event` names the event
    /// type.
    pub fn new(message: Message) -> Self {
        let event_type = message.attributes.get("event").map(String::as_str);
        let frame = FrameDraft::new(event_type, &message.data);
        let data = (frame.data() == DataForm::MixedLineEnds).then(|| Box::from(&*message.data));
        let is_plain =
            message.attributes.is_empty() && message.ordering_key.is_none() && data.is_none();
        let metadata = (!is_plain).then(|| {
            let context = TraceContext::of(&message.attributes);
            let trace = context.filter(|context| context.is_sampled).map(|context| {
                let (topic, is_delivered) = (message.topic.clone(), AtomicBool::new(false));
                Arc::new(MessageTrace { context, topic, is_delivered })
            });
            let attributes = message.attributes.into_iter();
            Box::new(Metadata {
                attributes: attributes.map(|(key, value)| (key.into(), value.into())).collect(),
                ordering_key: message.ordering_key.map(String::into_boxed_str),
                data,
                trace,
            })
        });
        Self {
            topic: message.topic,
            publish_time_ms: message.publish_time_ms,
            frame,
            message_id: message.message_id.map(String::into_boxed_str),
            metadata,
        }
    }

    /// Returns the topic of the message.
    pub fn topic(&self) -> &Topic {
        &self.topic
    }

    /// Returns Pub/Sub's id of the message, if it has one.
    pub fn message_id(&self) -> Option<&str> {
        self.message_id.as_deref()
    }

    /// Gives the event its id. The cost does not depend on the size of the data.
    pub fn seal(self, id: EventId) -> Arc<Event> {
        Arc::new(Event {
            id,
            topic: self.topic,
            publish_time_ms: self.publish_time_ms,
            data_form: self.frame.data(),
            is_traced: self.metadata.as_ref().is_some_and(|metadata| metadata.trace.is_some()),
            frame: self.frame.seal(id),
            message_id: self.message_id,
            metadata: self.metadata,
        })
    }
}

#[cfg(test)]
impl Event {
    /// Creates an event of a topic `orders` with `len` bytes of data.
    pub(crate) fn for_tests(id: EventId, len: usize) -> Arc<Self> {
        let message = Message::for_tests("orders", vec![b'x'; len]);
        Draft::new(message).seal(id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(data: &[u8], attributes: &[(&str, &str)]) -> Arc<Event> {
        let attributes = attributes.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
        Draft::new(Message {
            topic: "orders".parse().unwrap(),
            data: Bytes::copy_from_slice(data),
            attributes: attributes.collect(),
            ordering_key: None,
            message_id: Some("7".to_owned()),
            publish_time_ms: None,
        })
        .seal(EventId { time_ms: 17, sequence: 4 })
    }

    #[test]
    fn an_event_keeps_its_message() {
        for data in [&b"{\"id\":1}"[..], b"", b"a\nb", b"a\r\nb\n", &[0xff, 0xfe], b"data: x"] {
            let event = event(data, &[("event", "created"), ("a", "b")]);
            assert_eq!(&*event.data(), data);
            let attributes: Vec<_> = event.attributes().collect();
            assert_eq!(attributes, [("a", "b"), ("event", "created")]);
            assert_eq!(
                ["a", "event", "b"].map(|key| event.attribute(key)),
                [Some("b"), Some("created"), None]
            );
            assert_eq!((event.message_id(), event.ordering_key()), (Some("7"), None));
        }
    }

    #[test]
    fn data_is_not_stored_twice() {
        for data in [&[b'x'; 1_000][..], b"x\ny\n", &[0xff; 1_000]] {
            let event = event(data, &[]);
            assert_eq!(event.size(), event.frame().len() + 1 + EVENT_OVERHEAD_BYTES);
            assert!(event.metadata.is_none(), "one word when there is nothing in it");
        }
    }

    #[test]
    fn an_event_keeps_the_trace_that_its_publisher_records() {
        let parent = |flags| format!("00-{}-{}-{flags}", "a".repeat(32), "b".repeat(16));
        let recorded = event(b"x", &[("traceparent", &parent("01"))]);
        let trace = recorded.trace().unwrap();
        assert_eq!((trace.context.span_id, &trace.topic), (0xbbbb_bbbb_bbbb_bbbb, &recorded.topic));
        assert_eq!([trace.is_first_delivery(), trace.is_first_delivery()], [true, false]);
        let other = event(b"x", &[("traceparent", &parent("00"))]);
        assert!(other.trace().is_none());
        assert_eq!(recorded.size() - other.size(), TRACE_BYTES);
        let real = size_of::<MessageTrace>() + 2 * size_of::<usize>();
        assert!((real..real + 32).contains(&TRACE_BYTES), "{real}");
    }
}
