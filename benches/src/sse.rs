//! Server-sent events, taken apart as they come in.

use memchr::memchr;

use crate::payload::Payload;

/// The blocks of one stream.
#[derive(Debug, Default)]
pub struct Blocks {
    /// A line as far as it is there.
    line: Vec<u8>,
    block: Block,
    /// The last `id:`. Kept only if it is asked for, as copying each would cost time.
    pub id: Vec<u8>,
    pub keeps_ids: bool,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Block {
    name: Name,
    data: Data,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Name {
    #[default]
    None,
    Gap,
    End,
    /// Of the server's own.
    Other,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Data {
    #[default]
    None,
    Payload(Payload),
    Other,
}

/// What a block is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seen {
    Event(Payload),
    /// A comment, a lone id, an event of the server's own.
    Nothing,
    /// `stream-gap`: the server says that something was lost.
    Gap,
    /// `stream-end`: the server ends the stream.
    End,
    /// An event that nobody sent.
    Foreign,
}

impl Blocks {
    /// Takes what came in; `size` is that of every event's text.
    pub fn feed(&mut self, mut input: &[u8], size: usize, seen: &mut impl FnMut(Seen)) {
        while let Some(at) = memchr(b'\n', input) {
            if self.line.is_empty() {
                self.take(&input[..at], size, seen);
            } else {
                self.line.extend_from_slice(&input[..at]);
                let mut line = std::mem::take(&mut self.line);
                self.take(&line, size, seen);
                line.clear();
                self.line = line;
            }
            input = &input[at + 1..];
        }
        self.line.extend_from_slice(input);
    }

    fn take(&mut self, line: &[u8], size: usize, seen: &mut impl FnMut(Seen)) {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let value = |field: &[u8]| {
            let rest = line.strip_prefix(field)?.strip_prefix(b":")?;
            Some(rest.strip_prefix(b" ").unwrap_or(rest))
        };
        if line.is_empty() {
            seen(std::mem::take(&mut self.block).seen());
        } else if let Some(data) = value(b"data") {
            let payload = Payload::read(data, size).map_or(Data::Other, Data::Payload);
            let is_first = self.block.data == Data::None;
            self.block.data = if is_first { payload } else { Data::Other };
        } else if let Some(id) = value(b"id") {
            if self.keeps_ids {
                id.clone_into(&mut self.id);
            }
        } else if let Some(name) = value(b"event") {
            self.block.name = match name {
                b"stream-gap" => Name::Gap,
                b"stream-end" => Name::End,
                _ => Name::Other,
            };
        }
    }
}

impl Block {
    fn seen(self) -> Seen {
        match (self.name, self.data) {
            (Name::Gap, _) => Seen::Gap,
            (Name::End, _) => Seen::End,
            (Name::None, Data::Payload(payload)) => Seen::Event(payload),
            (Name::None, Data::Other) => Seen::Foreign,
            (Name::None, Data::None) | (Name::Other, _) => Seen::Nothing,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_the_same_wherever_reads_split_them() {
        let payload = Payload { topic: 1, publisher: 2, sequence: 3, message: 4, sent_ns: 5 };
        let mut sample = b": hi\n\nretry: 5\nid: 1-1\nevent: stream-open\ndata: {}\n\n".to_vec();
        sample.extend_from_slice(b"id: 1-2\ndata: ");
        payload.write(80, &mut sample);
        sample.extend_from_slice(b"\n\nid: 1-3\n\nevent: stream-gap\ndata: {}\n\ndata: x\n\n");
        sample.extend_from_slice(b"event: stream-end\r\ndata: {}\r\n\r\ndata: cut");
        let wanted = [
            Seen::Nothing,
            Seen::Nothing,
            Seen::Event(payload),
            Seen::Nothing,
            Seen::Gap,
            Seen::Foreign,
            Seen::End,
        ];
        for at in 0..sample.len() {
            let mut blocks = Blocks { keeps_ids: true, ..Blocks::default() };
            let mut found = Vec::new();
            for part in [&sample[..at], &sample[at..]] {
                blocks.feed(part, 80, &mut |seen| found.push(seen));
            }
            assert_eq!(found, wanted, "split at {at}");
            assert_eq!(blocks.id, b"1-3", "split at {at}");
        }
    }
}
