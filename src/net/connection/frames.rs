//! Follows what a peer sends over HTTP/2, to know for how long a head has been coming in.

/// Where in the frames of a connection the last byte was ([RFC 9113, section
/// 4.1](https://www.rfc-editor.org/rfc/rfc9113#section-4.1)).
#[derive(Debug)]
pub(super) struct Frames {
    /// Of the preface, which comes before all frames.
    preface_left: usize,
    header: [u8; HEADER_BYTES],
    /// Of the present frame's header.
    header_had: usize,
    /// Of its payload.
    payload_left: usize,
    /// Whether the head of a request has begun and not ended with the present frame.
    in_head: bool,
    /// Whether any frame is in: the first is part of the preface, and comes with it.
    is_begun: bool,
}

/// What a read has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Seen {
    /// A head, or the first frame, is coming in.
    pub(super) is_coming: bool,
    /// Something was completed, so what is coming in now has begun since.
    pub(super) is_new: bool,
}

const PREFACE_BYTES: usize = 24;
const HEADER_BYTES: usize = 9;
const HEADERS: u8 = 1;
const CONTINUATION: u8 = 9;
const END_HEADERS: u8 = 4;

impl Frames {
    pub(super) fn new() -> Self {
        Self {
            preface_left: PREFACE_BYTES,
            header: [0; HEADER_BYTES],
            header_had: 0,
            payload_left: 0,
            in_head: false,
            is_begun: false,
        }
    }

    /// Follows what was read.
    pub(super) fn read(&mut self, mut bytes: &[u8]) -> Seen {
        let mut is_new = false;
        while !bytes.is_empty() {
            bytes = self.step(bytes, &mut is_new);
        }
        let is_coming = !self.is_begun || self.in_head || 0 < self.header_had;
        Seen { is_coming, is_new }
    }

    fn step<'a>(&mut self, bytes: &'a [u8], is_new: &mut bool) -> &'a [u8] {
        if 0 < self.preface_left {
            let skipped = self.preface_left.min(bytes.len());
            self.preface_left -= skipped;
            return bytes.get(skipped..).unwrap_or_default();
        }
        if 0 < self.payload_left {
            let skipped = self.payload_left.min(bytes.len());
            self.payload_left -= skipped;
            if self.payload_left == 0 {
                self.finish_frame(is_new);
            }
            return bytes.get(skipped..).unwrap_or_default();
        }
        let Some((byte, rest)) = bytes.split_first() else { return bytes };
        if let Some(slot) = self.header.get_mut(self.header_had) {
            *slot = *byte;
        }
        self.header_had += 1;
        if self.header_had == HEADER_BYTES {
            self.header_had = 0;
            let [high, middle, low, kind, ..] = self.header;
            self.payload_left = u32::from_be_bytes([0, high, middle, low]) as usize;
            self.in_head = kind == HEADERS || kind == CONTINUATION;
            if self.payload_left == 0 {
                self.finish_frame(is_new);
            }
        }
        rest
    }

    fn finish_frame(&mut self, is_new: &mut bool) {
        let [_, _, _, kind, flags, ..] = self.header;
        self.is_begun = true;
        self.in_head = (kind == HEADERS || kind == CONTINUATION) && flags & END_HEADERS == 0;
        *is_new |= !self.in_head;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, flags: u8, len: u8) -> Vec<u8> {
        let mut frame = vec![0, 0, len, kind, flags, 0, 0, 0, 1];
        frame.extend(std::iter::repeat_n(0, len.into()));
        frame
    }

    #[test]
    fn a_head_comes_in_until_its_last_frame_is_there() {
        let coming = |is_coming, is_new| Seen { is_coming, is_new };
        for size in [1, 2, 5, 1_000] {
            let mut frames = Frames::new();
            let mut read = |bytes: &[u8]| {
                let all: Vec<_> = bytes.chunks(size).map(|part| frames.read(part)).collect();
                let is_new = all.iter().any(|seen| seen.is_new);
                Seen { is_coming: all.last().unwrap().is_coming, is_new }
            };
            assert_eq!(
                read(&[0; PREFACE_BYTES]),
                coming(true, false),
                "the first frame is missing"
            );
            assert_eq!(read(&frame(4, 0, 6)), coming(false, true));
            assert_eq!(read(&frame(HEADERS, 0, 3)), coming(true, false));
            assert_eq!(read(&frame(CONTINUATION, 0, 0)), coming(true, false));
            assert_eq!(read(&frame(CONTINUATION, END_HEADERS, 9)), coming(false, true));
            assert_eq!(
                read(&frame(0, 0, 9)[..12]),
                coming(false, false),
                "a body has its own time"
            );
            assert_eq!(read(&[0; 6]), coming(false, true));
            assert_eq!(read(&frame(HEADERS, END_HEADERS, 9)[..4]), coming(true, false));
        }
    }
}
