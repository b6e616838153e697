//! Follows the frames that an HTTP/2 peer sends, to find out when a request head begins and ends.

/// Position of the last received byte in the frames of a connection ([RFC 9113, section
/// 4.1](https://www.rfc-editor.org/rfc/rfc9113#section-4.1)).
#[derive(Debug)]
pub(super) struct Frames {
    /// Bytes still missing of the preface, which comes before all frames.
    preface_left: usize,
    /// Header of the current frame, as far as received.
    header: [u8; HEADER_BYTES],
    /// Bytes received of the current frame's header.
    header_len: usize,
    /// Bytes still missing of the current frame's payload.
    payload_left: usize,
    /// True while a request head has begun and its last frame is not complete.
    in_head: bool,
    /// True if a frame was completed. The first frame, SETTINGS, belongs to the preface (section
    /// 3.4 of the RFC) and has the time limit of a head too.
    has_frame: bool,
}

/// Effect of received bytes on the head of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Seen {
    /// True while a head, or the first frame, is incomplete.
    pub(super) is_incomplete: bool,
    /// True if a head or another frame was completed: an incomplete head began after that.
    pub(super) has_completed: bool,
}

/// Length of the preface.
const PREFACE_BYTES: usize = 24;
/// Length of the header of a frame.
const HEADER_BYTES: usize = 9;
// Frame types and a flag (RFC 9113, sections 6.2 and 6.10).
const HEADERS: u8 = 1;
const CONTINUATION: u8 = 9;
const END_HEADERS: u8 = 4;

impl Frames {
    /// Creates the position before the preface.
    pub(super) fn new() -> Self {
        Self {
            preface_left: PREFACE_BYTES,
            header: [0; HEADER_BYTES],
            header_len: 0,
            payload_left: 0,
            in_head: false,
            has_frame: false,
        }
    }

    /// Follows received bytes.
    pub(super) fn read(&mut self, mut bytes: &[u8]) -> Seen {
        let mut has_completed = false;
        while !bytes.is_empty() {
            bytes = self.step(bytes, &mut has_completed);
        }
        let is_incomplete = !self.has_frame || self.in_head || 0 < self.header_len;
        Seen { is_incomplete, has_completed }
    }

    /// Follows the bytes up to the next border within a frame. Returns the rest.
    fn step<'a>(&mut self, bytes: &'a [u8], has_completed: &mut bool) -> &'a [u8] {
        if 0 < self.preface_left {
            let skipped = self.preface_left.min(bytes.len());
            self.preface_left -= skipped;
            return bytes.get(skipped..).unwrap_or_default();
        }
        if 0 < self.payload_left {
            let skipped = self.payload_left.min(bytes.len());
            self.payload_left -= skipped;
            if self.payload_left == 0 {
                self.finish_frame(has_completed);
            }
            return bytes.get(skipped..).unwrap_or_default();
        }
        let Some((byte, rest)) = bytes.split_first() else { return bytes };
        if let Some(slot) = self.header.get_mut(self.header_len) {
            *slot = *byte;
        }
        self.header_len += 1;
        if self.header_len == HEADER_BYTES {
            self.header_len = 0;
            let [high, middle, low, kind, ..] = self.header;
            self.payload_left = u32::from_be_bytes([0, high, middle, low]) as usize;
            self.in_head = kind == HEADERS || kind == CONTINUATION;
            if self.payload_left == 0 {
                self.finish_frame(has_completed);
            }
        }
        rest
    }

    /// Ends the current frame.
    fn finish_frame(&mut self, has_completed: &mut bool) {
        let [_, _, _, kind, flags, ..] = self.header;
        self.has_frame = true;
        self.in_head = (kind == HEADERS || kind == CONTINUATION) && flags & END_HEADERS == 0;
        *has_completed |= !self.in_head;
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
    fn head_is_incomplete_until_its_last_frame_is_received() {
        let seen = |is_incomplete, has_completed| Seen { is_incomplete, has_completed };
        for size in [1, 2, 5, 1_000] {
            let mut frames = Frames::new();
            let mut read = |bytes: &[u8]| {
                let all: Vec<_> = bytes.chunks(size).map(|part| frames.read(part)).collect();
                let has_completed = all.iter().any(|seen| seen.has_completed);
                Seen { is_incomplete: all.last().unwrap().is_incomplete, has_completed }
            };
            assert_eq!(read(&[0; PREFACE_BYTES]), seen(true, false), "the first frame is missing");
            assert_eq!(read(&frame(4, 0, 6)), seen(false, true));
            assert_eq!(read(&frame(HEADERS, 0, 3)), seen(true, false));
            assert_eq!(read(&frame(CONTINUATION, 0, 0)), seen(true, false));
            assert_eq!(read(&frame(CONTINUATION, END_HEADERS, 9)), seen(false, true));
            assert_eq!(
                read(&frame(0, 0, 9)[..12]),
                seen(false, false),
                "DATA is not part of a head"
            );
            assert_eq!(read(&[0; 6]), seen(false, true));
            assert_eq!(read(&frame(HEADERS, END_HEADERS, 9)[..4]), seen(true, false));
        }
    }
}
