//! Messages in a body: each has a prefix of five bytes, a flag and the length
//! (<https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md>).

use std::{
    cell::RefCell,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
};

use actix_web::{error::PayloadError, web::Payload};
use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use futures_util::{Stream, StreamExt as _};
use prost::Message;

use super::status::{Code, Status};

/// Length of the prefix of a message.
pub(super) const PREFIX_BYTES: usize = 5;
/// Flag of a message that is not compressed.
const PLAIN: u8 = 0;
/// Flag of a compressed message.
const COMPRESSED: u8 = 1;

/// Encodes a message with its prefix.
pub(super) fn encoded(message: &impl Message) -> Bytes {
    let len = message.encoded_len();
    let mut out = BytesMut::with_capacity(PREFIX_BYTES + len);
    put_prefix(&mut out, PLAIN, len);
    message.encode_raw(&mut out);
    out.freeze()
}

/// Appends the prefix of `len` bytes. A message of 4 GiB cannot exist: an event is smaller.
pub(super) fn put_prefix(out: &mut BytesMut, flag: u8, len: usize) {
    out.put_u8(flag);
    out.put_u32(u32::try_from(len).unwrap_or(u32::MAX));
}

/// Returns the length of the message behind a prefix.
///
/// # Errors
/// Fails when the message is compressed or has more than `max` bytes, or when its flag is unknown.
fn length_of(prefix: [u8; PREFIX_BYTES], max: usize) -> Result<usize, Status> {
    let [flag, length @ ..] = prefix;
    match flag {
        PLAIN => {}
        COMPRESSED => {
            let text = "the message is compressed: send it plain (grpc-accept-encoding: identity)";
            return Err(Status::new(Code::Unimplemented, text));
        }
        other => {
            let text = format!("the prefix of a message has the flag {other}: expected 0");
            return Err(Status::new(Code::Internal, text));
        }
    }
    let len = u32::from_be_bytes(length) as usize;
    if max < len {
        let text = format!("the message has {len} bytes: at most {max} are allowed");
        return Err(Status::new(Code::ResourceExhausted, text));
    }
    Ok(len)
}

/// Takes the first message of at most `max` bytes from `received`. Returns `None` if it is not
/// complete.
///
/// # Errors
/// Fails when the message is compressed or too large.
pub(super) fn take(received: &mut BytesMut, max: usize) -> Result<Option<Bytes>, Status> {
    let Some(prefix) = received.first_chunk::<PREFIX_BYTES>() else { return Ok(None) };
    let len = length_of(*prefix, max)?;
    if received.len() < PREFIX_BYTES + len {
        return Ok(None);
    }
    received.advance(PREFIX_BYTES);
    Ok(Some(received.split_to(len).freeze()))
}

/// Decodes the only message of a request.
///
/// # Errors
/// Fails when the body is not exactly one message of at most `max` bytes.
pub(super) fn decode_only<M: Message + Default>(body: Bytes, max: usize) -> Result<M, Status> {
    let mut rest = BytesMut::from(body);
    let Some(message) = take(&mut rest, max)? else {
        let (code, text) = match rest.len() {
            0 => (Code::Unimplemented, "the request has no message: expected one"),
            _ => (Code::InvalidArgument, "the message of the request was cut off"),
        };
        return Err(Status::new(code, text));
    };
    if !rest.is_empty() {
        let text = "the request has several messages: this method expects one";
        return Err(Status::new(Code::Unimplemented, text));
    }
    decode(message)
}

/// Decodes a message.
///
/// # Errors
/// Fails when the message is malformed.
pub(super) fn decode<M: Message + Default>(message: Bytes) -> Result<M, Status> {
    M::decode(message).map_err(|err| {
        Status::new(Code::InvalidArgument, format!("the message is malformed: {err}"))
    })
}

/// Body of a request. If the prefix is wrong, the body ends with an error before the rest arrives.
pub(super) struct CheckedBody {
    payload: Payload,
    /// First bytes of the body. `None` after they were checked.
    prefix: Option<BytesMut>,
    /// Largest message, in bytes.
    max: usize,
    /// Status of a wrong prefix. The caller reads it after the body has failed.
    refusal: Rc<RefCell<Option<Status>>>,
}

impl CheckedBody {
    /// Creates the body. Also returns the cell that gets the status of a wrong prefix.
    pub(super) fn new(payload: Payload, max: usize) -> (Self, Rc<RefCell<Option<Status>>>) {
        let refusal = Rc::default();
        let prefix = Some(BytesMut::with_capacity(PREFIX_BYTES));
        (Self { payload, prefix, max, refusal: Rc::clone(&refusal) }, refusal)
    }

    fn check(&mut self, chunk: &[u8]) -> Result<(), Status> {
        let Some(prefix) = &mut self.prefix else { return Ok(()) };
        let missing = PREFIX_BYTES - prefix.len();
        prefix.extend(chunk.iter().take(missing));
        let Some(whole) = prefix.first_chunk::<PREFIX_BYTES>().copied() else { return Ok(()) };
        self.prefix = None;
        length_of(whole, self.max).map(drop)
    }
}

impl Stream for CheckedBody {
    type Item = Result<Bytes, PayloadError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let chunk = ready!(self.payload.poll_next_unpin(cx));
        if let Some(Ok(bytes)) = &chunk
            && let Err(status) = self.check(bytes)
        {
            self.refusal.replace(Some(status));
            return Poll::Ready(Some(Err(PayloadError::Overflow)));
        }
        Poll::Ready(chunk)
    }
}

/// Messages that a client sends while its call goes on.
pub(super) struct Incoming {
    payload: Payload,
    received: BytesMut,
    /// Largest message, in bytes.
    max: usize,
    is_ended: bool,
}

impl Incoming {
    pub(super) fn new(payload: Payload, max: usize) -> Self {
        Self { payload, received: BytesMut::new(), max, is_ended: false }
    }

    /// Returns the number of received bytes that are no whole message.
    pub(super) fn len(&self) -> usize {
        self.received.len()
    }

    /// Returns the next message, or `None` when the client will send no more.
    pub(super) fn poll<M: Message + Default>(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<M, Status>>> {
        loop {
            match take(&mut self.received, self.max) {
                Ok(Some(message)) => return Poll::Ready(Some(decode(message))),
                Ok(None) if self.is_ended && self.received.is_empty() => return Poll::Ready(None),
                Ok(None) if self.is_ended => {
                    let status = Status::new(Code::InvalidArgument, "the last message was cut off");
                    return Poll::Ready(Some(Err(status)));
                }
                Ok(None) => {}
                Err(status) => return Poll::Ready(Some(Err(status))),
            }
            match ready!(self.payload.poll_next_unpin(cx)) {
                Some(Ok(chunk)) => self.received.extend_from_slice(&chunk),
                Some(Err(_)) => {
                    let status = Status::new(Code::Cancelled, "the request was cut off");
                    return Poll::Ready(Some(Err(status)));
                }
                None => self.is_ended = true,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outlet::grpc::proto::stream_events::Renew;

    fn taken(bytes: &[u8]) -> Result<Option<Bytes>, Code> {
        take(&mut BytesMut::from(bytes), 4).map_err(|status| status.code)
    }

    #[test]
    fn messages_are_taken_whole() {
        assert_eq!(taken(&[0, 0, 0, 0, 0]), Ok(Some(Bytes::new())));
        assert_eq!(taken(&[0, 0, 0, 0, 2, 7, 8, 0]), Ok(Some(Bytes::from_static(&[7, 8]))));
        for part in [&[][..], &[0, 0, 0, 0], &[0, 0, 0, 0, 2, 7]] {
            assert_eq!(taken(part), Ok(None));
        }
        assert_eq!(taken(&[0, 0, 0, 0, 5]), Err(Code::ResourceExhausted));
        assert_eq!(taken(&[0, 255, 255, 255, 255]), Err(Code::ResourceExhausted));
        assert_eq!(taken(&[1, 0, 0, 0, 2]), Err(Code::Unimplemented));
        assert_eq!(taken(&[2, 0, 0, 0, 2]), Err(Code::Internal));
    }

    #[test]
    fn a_request_has_one_message() {
        let renew = Renew { token: "a".to_owned() };
        let one = encoded(&renew);
        assert_eq!(decode_only::<Renew>(one.clone(), 64), Ok(renew));
        let two = [&one[..], &one].concat();
        for (bad, code) in [
            (&b""[..], Code::Unimplemented),
            (&two, Code::Unimplemented),
            (&one[..7], Code::InvalidArgument),
            (&[0, 0, 0, 0, 1, 255], Code::InvalidArgument),
        ] {
            let refused = decode_only::<Renew>(Bytes::copy_from_slice(bad), 64).unwrap_err();
            assert_eq!(refused.code, code, "{bad:?}");
        }
    }
}
