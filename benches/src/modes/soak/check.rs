//! What every reader must have got: all of its topics in order, once, or a gap that says so.

use serde::Deserialize;

use super::blocks::Block;
use crate::{payload::Payload, tally::Shape};

/// Of an event; they grow. The server's are two numbers, the floor's one.
pub type Id = (u64, u64);

/// What was published.
#[derive(Debug)]
struct Event {
    size: usize,
    /// As the first reader saw it.
    id: Option<Id>,
}

/// A reader in one of its topics.
#[derive(Debug, Clone)]
struct Place {
    /// The last sequence. None: it began without an id, wherever the server was.
    last: Option<u32>,
    /// Since then it was told that events are gone: after the first of two ids, up to the second.
    told: Vec<(Id, Id)>,
}

#[derive(Debug)]
pub struct Check {
    shape: Shape,
    events: Vec<Vec<Event>>,
    places: Vec<Place>,
    /// For each stream the last id.
    newest: Vec<Id>,
    pub deliveries: u64,
    pub gaps: u64,
    /// Events that readers did not get and were told of.
    pub missed: u64,
    /// Of these, those that no reader got: whether the gap spans their ids is not known.
    pub missed_by_all: u64,
    pub violations: u64,
    /// The first ones.
    pub named: Vec<String>,
}

/// A gap's data; the fields that matter here.
#[derive(Deserialize)]
struct Gap<'a> {
    reason: &'a str,
    topics: Vec<&'a str>,
    after: &'a str,
    upto: &'a str,
}

const NAMED_MAX: usize = 10;

fn parse(id: &str) -> Option<Id> {
    let (first, second) = id.split_once('-').unwrap_or((id, "0"));
    Some((first.parse().ok()?, second.parse().ok()?))
}

impl Check {
    pub fn new(shape: Shape) -> Self {
        // Streams open before the first message, so each of them gets it.
        let place = Place { last: Some(0), told: Vec::new() };
        Self {
            shape,
            events: (0..shape.topics).map(|_| Vec::new()).collect(),
            places: vec![place; shape.streams * shape.per_stream],
            newest: vec![Id::default(); shape.streams],
            deliveries: 0,
            gaps: 0,
            missed: 0,
            missed_by_all: 0,
            violations: 0,
            named: Vec::new(),
        }
    }

    /// A message is on its way: its sequence.
    pub fn published(&mut self, topic: usize, size: usize) -> u32 {
        self.events[topic].push(Event { size, id: None });
        self.events[topic].len() as u32
    }

    pub fn messages(&self) -> usize {
        self.events.iter().map(Vec::len).sum()
    }

    /// A stream opens again without an id: it gets what is published from then on.
    pub fn forget(&mut self, stream: usize) {
        let first = stream * self.shape.per_stream;
        let last = (self.messages() == 0).then_some(0);
        let place = Place { last, told: Vec::new() };
        self.places[first..first + self.shape.per_stream].fill(place);
    }

    /// A stream got a block.
    pub fn block(&mut self, stream: usize, block: &Block<'_>) {
        let id = block.id.map(|id| str::from_utf8(id).ok().and_then(parse));
        let id = match id {
            Some(None) => return self.violation(format!("stream {stream} got no id: {block:?}")),
            Some(id) => id,
            None => None,
        };
        let before = self.newest[stream];
        if let Some(id) = id {
            if id < before {
                self.violation(format!("stream {stream} went back from {before:?} to {id:?}"));
            }
            self.newest[stream] = id;
        }
        match (block.event, block.data) {
            (b"stream-gap", data) => self.gap(stream, data.unwrap_or_default()),
            (b"", Some(data)) => self.event(stream, data, id.filter(|id| before < *id)),
            _ => {}
        }
    }

    fn gap(&mut self, stream: usize, data: &[u8]) {
        self.gaps += 1;
        let gap = serde_json::from_slice::<Gap<'_>>(data).ok();
        let known = gap.and_then(|gap| Some((parse(gap.after)?, parse(gap.upto)?, gap)));
        let Some((after, upto, gap)) = known else {
            return self.violation(format!("stream {stream}: {}", String::from_utf8_lossy(data)));
        };
        // The server handed the id out itself and ran on, so no other reason can be true.
        if !matches!(gap.reason, "evicted" | "log-changed") || upto <= after {
            self.violation(format!("stream {stream}: {}", String::from_utf8_lossy(data)));
        }
        for (at, topic) in self.shape.topics_of(stream).enumerate() {
            let named = format!("topic{topic}");
            if !gap.topics.is_empty() && !gap.topics.contains(&named.as_str()) {
                continue;
            }
            let told = &mut self.places[stream * self.shape.per_stream + at].told;
            match told.last_mut() {
                // A reader that was cut before it got on is told again.
                Some(last) if last.0 <= after && after <= last.1 => last.1 = last.1.max(upto),
                _ => told.push((after, upto)),
            }
        }
    }

    fn event(&mut self, stream: usize, data: &[u8], id: Option<Id>) {
        self.deliveries += 1;
        let begin = || String::from_utf8_lossy(&data[..data.len().min(40)]).into_owned();
        let Some((payload, at)) = Payload::read(data, data.len())
            .and_then(|payload| Some((payload, self.place(stream, payload.topic as usize)?)))
        else {
            return self.violation(format!("stream {stream} got what is not its: {}", begin()));
        };
        let (topic, sequence) = (payload.topic as usize, payload.sequence);
        let Some(id) = id else {
            return self.violation(format!("stream {stream} got no newer id with {}", begin()));
        };
        let sent = (sequence as usize).checked_sub(1).and_then(|at| self.events[topic].get_mut(at));
        let Some(sent) = sent.filter(|sent| sent.size == data.len()) else {
            return self.violation(format!("stream {stream} got what nobody sent: {}", begin()));
        };
        let known = *sent.id.get_or_insert(id);
        if known != id {
            self.violation(format!("{} of topic {topic}: {known:?} and {id:?}", payload.sequence));
        }
        let last = self.places[at].last.unwrap_or(sequence - 1);
        if sequence <= last {
            self.violation(format!("stream {stream} got {sequence} of {topic} after {last}"));
        }
        self.excuse(stream, at, topic, last + 1..sequence);
        self.places[at] = Place { last: Some(sequence), told: Vec::new() };
    }

    /// What a reader did not get: it has to lie where it was told that events are gone.
    fn excuse(&mut self, stream: usize, at: usize, topic: usize, missing: std::ops::Range<u32>) {
        let told = &self.places[at].told;
        let is_in = |id: Id| told.iter().any(|(after, upto)| *after < id && id <= *upto);
        let (mut unseen, mut lost) = (0, 0);
        for sequence in missing.clone() {
            match self.events[topic][sequence as usize - 1].id {
                _ if told.is_empty() => lost += 1,
                Some(id) => lost += u64::from(!is_in(id)),
                None => unseen += 1,
            }
        }
        self.missed += missing.len() as u64 - lost;
        self.missed_by_all += unseen;
        if 0 < lost {
            let text = format!("{lost} of {missing:?} of topic {topic}, told {told:?}");
            self.violation(format!("stream {stream} lost {text}"));
        }
    }

    /// The stream has the last event of each of its topics.
    pub fn is_complete(&self, stream: usize) -> bool {
        self.shape.topics_of(stream).enumerate().all(|(at, topic)| {
            let last = self.places[stream * self.shape.per_stream + at].last;
            last.is_none_or(|last| last as usize == self.events[topic].len())
        })
    }

    /// Nothing more comes: what is missing now has to be told too.
    pub fn finish(&mut self) {
        for stream in 0..self.shape.streams {
            for (at, topic) in self.shape.topics_of(stream).enumerate().collect::<Vec<_>>() {
                let at = stream * self.shape.per_stream + at;
                let end = self.events[topic].len() as u32 + 1;
                if let Some(last) = self.places[at].last {
                    self.excuse(stream, at, topic, last + 1..end);
                }
            }
        }
    }

    /// Something that must not be. Told at once, since the run may be long or end early.
    pub fn violation(&mut self, text: String) {
        self.violations += 1;
        if self.named.len() < NAMED_MAX {
            eprintln!("load: soak: {text}");
            self.named.push(text);
        }
    }

    fn place(&self, stream: usize, topic: usize) -> Option<usize> {
        let at = self.shape.topics_of(stream).position(|followed| followed == topic)?;
        Some(stream * self.shape.per_stream + at)
    }
}

#[cfg(test)]
#[path = "check_tests.rs"]
mod tests;
