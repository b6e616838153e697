//! Streams of a session, each with a name.

use std::{sync::Arc, task::Waker};

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use prost::encoding::{encode_varint, encoded_len_varint};
use tokio::time::Instant;

use crate::{
    model::control::{Control, End},
    outlet::grpc::{
        message::{PREFIX_BYTES, encoded, put_prefix},
        record,
    },
    stream::{
        drive::body::FellBehindError,
        lease::Lease,
        session::{Next, Session},
    },
};

/// Streams, of which each is asked in turn.
#[derive(Debug, Default)]
pub(super) struct Streams {
    all: Vec<Stream>,
    /// Index of the stream that is asked first.
    first: usize,
    /// Index of the stream of which a part of a large event was given: its rest comes next.
    within: Option<usize>,
}

#[derive(Debug)]
struct Stream {
    name: String,
    session: Session,
}

/// Next step of all streams together.
#[derive(Debug)]
pub(super) enum Step {
    /// Records of a stream, or a part of one.
    Give(Bytes),
    /// Last record of a stream, which is no longer one of the streams.
    End(Bytes, End),
    /// Waits for the wakers of the streams, and until this time at the latest.
    WaitUntil(Instant),
    /// Asks again after other tasks of the thread have run.
    Yield,
    /// Cuts the call.
    Cut(FellBehindError),
}

impl Streams {
    pub(super) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    /// Returns true if the rest of a record has to be written before any other one.
    pub(super) fn is_within_record(&self) -> bool {
        self.within.is_some()
    }

    pub(super) fn contains(&self, name: &str) -> bool {
        self.all.iter().any(|stream| stream.name == name)
    }

    pub(super) fn add(&mut self, name: String, session: Session) {
        self.all.push(Stream { name, session });
    }

    /// Removes the stream with a name. Returns false if there is none.
    pub(super) fn remove(&mut self, name: &str) -> bool {
        let before = self.all.len();
        self.all.retain(|stream| stream.name != name);
        self.all.len() < before
    }

    /// Returns the leases of all streams.
    pub(super) fn leases(&self) -> impl Iterator<Item = &Arc<Lease>> + Clone {
        self.all.iter().filter_map(|stream| stream.session.lease())
    }

    /// Calls `mark` for each session.
    pub(super) fn mark_all(&mut self, mark: fn(&mut Session)) {
        self.all.iter_mut().for_each(|stream| mark(&mut stream.session));
    }

    /// Returns the next step. A step that waits calls `waker` when a stream has more to write.
    pub(super) fn next(&mut self, now: Instant, waker: &Waker) -> Step {
        if let Some(at) = self.within {
            return self.next_of(at, now, waker);
        }
        let (count, first) = (self.all.len(), self.first);
        let (mut deadline, mut yields) = (None, false);
        for at in (first..first + count).map(|at| at % count) {
            match self.next_of(at, now, waker) {
                Step::WaitUntil(due) => {
                    deadline = Some(deadline.map_or(due, |before: Instant| before.min(due)));
                }
                Step::Yield => yields = true,
                step => {
                    self.first = at + 1;
                    return step;
                }
            }
        }
        match deadline {
            Some(due) if !yields => Step::WaitUntil(due),
            _ => Step::Yield,
        }
    }

    fn next_of(&mut self, at: usize, now: Instant, waker: &Waker) -> Step {
        let was_within = self.within.take().is_some();
        let Some(Stream { name, session }) = self.all.get_mut(at) else { return Step::Yield };
        match session.next(now) {
            Next::Give(bytes) => {
                self.within = session.is_within_event().then_some(at);
                Step::Give(if was_within { bytes } else { with_name(name, bytes) })
            }
            Next::Say(Control::End(end)) => {
                let name = self.all.remove(at).name;
                Step::End(encoded(&record::of_control(name, &Control::End(end))), end)
            }
            Next::Say(control) => Step::Give(encoded(&record::of_control(name.clone(), &control))),
            Next::WaitUntil(due) => {
                session.wait(waker);
                Step::WaitUntil(due)
            }
            Next::Yield => Step::Yield,
            Next::Finished => {
                self.all.remove(at);
                Step::Yield
            }
            Next::FellBehind => Step::Cut(FellBehindError),
        }
    }
}

/// Key of the field `sub` of a record: its number is 1, and it has a length.
const SUB_KEY: u8 = 1 << 3 | 2;

/// Inserts the field `sub` into each record of `records`. The last one can be the beginning of a
/// record.
fn with_name(name: &str, mut records: Bytes) -> Bytes {
    if name.is_empty() {
        return records;
    }
    let mut field = BytesMut::new();
    field.put_u8(SUB_KEY);
    encode_varint(name.len() as u64, &mut field);
    field.put_slice(name.as_bytes());
    debug_assert_eq!(field.len(), 1 + encoded_len_varint(name.len() as u64) + name.len());
    let mut out = BytesMut::with_capacity(records.len() + 4 * (field.len() + PREFIX_BYTES));
    while let Some([flag, length @ ..]) = records.first_chunk::<PREFIX_BYTES>().copied() {
        let length = u32::from_be_bytes(length) as usize;
        records.advance(PREFIX_BYTES);
        put_prefix(&mut out, flag, field.len() + length);
        out.put_slice(&field);
        out.put_slice(&records.split_to(length.min(records.len())));
    }
    out.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outlet::grpc::proto::stream_events::{
        Event, KeepAlive, Record, record::Record as Kind,
    };

    fn record(sub: &str, kind: Kind) -> Bytes {
        encoded(&Record { sub: sub.to_owned(), record: Some(kind) })
    }

    #[test]
    fn a_name_is_inserted_into_each_record() {
        let event = || Kind::Event(Event { data: vec![7; 40_000].into(), ..Event::default() });
        let batch = |sub: &str| {
            let records = [record(sub, Kind::KeepAlive(KeepAlive {})), record(sub, event())];
            Bytes::from(records.concat())
        };
        for name in ["a", &"é".repeat(64)] {
            assert_eq!(with_name(name, batch("")), batch(name));
            let (first, rest) = (batch("").slice(..20_000), batch("").slice(20_000..));
            assert_eq!([with_name(name, first), rest].concat(), batch(name), "a part of a record");
        }
        assert_eq!(with_name("", batch("")), batch(""));
    }
}
