//! What has to arrive, what did, and how late.

use hdrhistogram::Histogram;

use crate::payload::Payload;

/// Who follows what: stream `i` follows `per_stream` topics from `i * per_stream` on, so the
/// streams are spread evenly.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    pub streams: usize,
    pub topics: usize,
    pub per_stream: usize,
}

impl Shape {
    /// The first topic of a stream.
    pub fn first_topic(&self, stream: usize) -> usize {
        (stream * self.per_stream) % self.topics
    }

    /// The topics of a stream.
    pub fn topics_of(&self, stream: usize) -> impl Iterator<Item = usize> {
        let (first, topics) = (self.first_topic(stream), self.topics);
        (0..self.per_stream).map(move |at| (first + at) % topics)
    }
}

/// Every stream's place, and the deliveries.
#[derive(Debug)]
pub struct Tally {
    shape: Shape,
    publishers: usize,
    /// For each stream, topic of it and publisher the last sequence.
    last: Vec<u32>,
    /// For each stream a digest of the order in which it got messages.
    order: Vec<u64>,
    /// For each topic how many streams follow it.
    followers: Vec<u32>,
    /// For each message how many deliveries are missing.
    missing: Vec<u32>,
    /// Messages of which deliveries are missing.
    pub unfinished: usize,
    /// Messages from this one on are measured.
    measured_from: u32,
    /// Streams from this one on are expected to get everything but not measured: they are stalled.
    pub unread: usize,
    pub latency_ns: Histogram<u64>,
    pub deliveries: u64,
    pub violations: u64,
    /// The first ones.
    pub named: Vec<String>,
}

const NAMED_MAX: usize = 10;

/// To three digits, up to a minute; what is later counts as that.
fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 60_000_000_000, 3).expect("these bounds are allowed")
}

impl Tally {
    pub fn new(shape: Shape, publishers: usize, unread: usize) -> Self {
        let mut followers = vec![0; shape.topics];
        for stream in 0..shape.streams - unread {
            shape.topics_of(stream).for_each(|topic| followers[topic] += 1);
        }
        Self {
            shape,
            publishers,
            last: vec![0; shape.streams * shape.per_stream * publishers],
            order: vec![0; shape.streams],
            followers,
            missing: Vec::new(),
            unfinished: 0,
            measured_from: u32::MAX,
            unread,
            latency_ns: histogram(),
            deliveries: 0,
            violations: 0,
            named: Vec::new(),
        }
    }

    /// The events are of so many publishers, whose connections are not this client's.
    pub fn expect_publishers(&mut self, publishers: usize) {
        self.publishers = publishers;
        self.last = vec![0; self.shape.streams * self.shape.per_stream * publishers];
    }

    /// Nothing that was published so far is waited for.
    pub fn forgive(&mut self) {
        self.missing.iter_mut().for_each(|missing| *missing = 0);
        self.unfinished = 0;
    }

    /// A message is on its way. They are numbered in the order of these calls.
    pub fn published(&mut self, topic: usize) {
        let followers = self.followers[topic];
        self.missing.push(followers);
        self.unfinished += usize::from(0 < followers);
    }

    /// How many messages there were.
    pub fn messages(&self) -> u32 {
        self.missing.len() as u32
    }

    /// From the next message on deliveries are measured.
    pub fn begin(&mut self) {
        self.measured_from = self.messages();
    }

    /// The events up to this one will not be sent to the stream: it comes back with its id.
    pub fn resume(&mut self, stream: usize, from: &Payload) {
        if let Some(at) = self.place(stream, from) {
            self.last[at] = from.sequence;
        }
    }

    /// A stream got an event.
    pub fn delivered(&mut self, stream: usize, payload: &Payload, now_ns: u64) {
        let Some(at) = self.place(stream, payload) else {
            return self
                .violation(format!("stream {stream} does not follow what it got: {payload:?}"));
        };
        let wanted = self.last[at] + 1;
        if payload.sequence != wanted {
            self.violation(format!(
                "stream {stream} got {} of topic {} and publisher {} instead of {wanted}",
                payload.sequence, payload.topic, payload.publisher
            ));
        }
        self.last[at] = payload.sequence;
        let order = &mut self.order[stream];
        *order = (*order ^ u64::from(payload.message)).wrapping_mul(0x9E37_79B9_7F4A_7C15) + 1;
        let Some(missing) = self.missing.get_mut(payload.message as usize) else {
            return self.violation(format!("stream {stream} got what nobody sent: {payload:?}"));
        };
        // More than were missing are doubles, which the sequence shows.
        if 0 < *missing {
            *missing -= 1;
            self.unfinished -= usize::from(*missing == 0);
        }
        if self.measured_from <= payload.message {
            self.deliveries += 1;
            self.latency_ns.saturating_record(now_ns.saturating_sub(payload.sent_ns));
        }
    }

    /// Something that must not be.
    pub fn violation(&mut self, text: String) {
        self.violations += 1;
        if self.named.len() < NAMED_MAX {
            self.named.push(text);
        }
    }

    /// Streams of the same one topic have to have seen the same order, across publishers too.
    pub fn compare_orders(&mut self) {
        if self.shape.per_stream != 1 {
            return;
        }
        for stream in self.shape.topics..self.shape.streams - self.unread {
            let twin = stream % self.shape.topics;
            if self.order[stream] != self.order[twin] {
                self.violation(format!("streams {twin} and {stream} saw different orders"));
            }
        }
    }

    fn place(&self, stream: usize, payload: &Payload) -> Option<usize> {
        let (topic, topics) = (payload.topic as usize, self.shape.topics);
        let publisher = payload.publisher as usize;
        let at = (topic + topics).checked_sub(self.shape.first_topic(stream))? % topics;
        let known = at < self.shape.per_stream && publisher < self.publishers && topic < topics;
        known.then(|| (stream * self.shape.per_stream + at) * self.publishers + publisher)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two streams on one topic, each given these sequences of the first publisher.
    fn given(sequences: [&[u32]; 2]) -> Tally {
        let shape = Shape { streams: 2, topics: 1, per_stream: 1 };
        let mut tally = Tally::new(shape, 1, 0);
        (0..3).for_each(|_| tally.published(0));
        for (stream, sequences) in sequences.into_iter().enumerate() {
            for sequence in sequences {
                let message = sequence - 1;
                let payload = Payload { sequence: *sequence, message, ..Payload::default() };
                tally.delivered(stream, &payload, 0);
            }
        }
        tally.compare_orders();
        tally
    }

    #[test]
    fn loss_doubles_and_disorder_are_violations() {
        let well = given([&[1, 2, 3], &[1, 2, 3]]);
        assert_eq!((well.violations, well.unfinished), (0, 0));
        for wrong in [[1, 3].as_slice(), &[1, 1, 2, 3], &[2, 1, 3], &[2, 3]] {
            assert_ne!(given([&[1, 2, 3], wrong]).violations, 0, "{wrong:?}");
        }
        let cut = given([&[1, 2, 3], &[1, 2]]);
        assert_eq!(cut.unfinished, 1);
    }

    #[test]
    fn streams_are_spread_over_topics() {
        let shape = Shape { streams: 4, topics: 3, per_stream: 2 };
        let topics: Vec<Vec<_>> = (0..4).map(|stream| shape.topics_of(stream).collect()).collect();
        assert_eq!(topics, [[0, 1], [2, 0], [1, 2], [0, 1]]);
        let tally = Tally::new(shape, 1, 0);
        let of = |stream, topic| tally.place(stream, &Payload { topic, ..Payload::default() });
        assert_eq!([of(1, 2), of(1, 0), of(1, 1), of(1, 3)], [Some(2), Some(3), None, None]);
    }
}
