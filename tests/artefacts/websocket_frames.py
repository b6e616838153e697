"""Frames of WebSockets (RFC 6455) as bytes, also those that no library sends."""

import json
import struct

FIN, RSV1, RSV2, RSV3 = 0x80, 0x40, 0x20, 0x10
CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
MASK = b"\x37\xfa\x21\x3d"


def length_of(size, width=None):
    """The length in so many more bytes, as few as possible unless `width` says how many."""
    if width is None:
        width = 0 if size <= 125 else 2 if size <= 0xffff else 8
    return {0: lambda: (size, b""), 2: lambda: (126, struct.pack("!H", size)),
            8: lambda: (127, struct.pack("!Q", size))}[width]()


def frame(first, payload=b"", mask=MASK, width=None, announced=None):
    """A frame whose first byte is `first`. `announced` is a length that is not that of the payload."""
    short, long = length_of(len(payload) if announced is None else announced, width)
    if mask is None:
        return bytes([first, short]) + long + payload
    masked = bytes(byte ^ mask[at % 4] for at, byte in enumerate(payload))
    return bytes([first, 0x80 | short]) + long + mask + masked


def text(payload, **options):
    return frame(FIN | TEXT, payload, **options)


def ping(payload=b"", **options):
    return frame(FIN | PING, payload, **options)


def pong(payload=b"", **options):
    return frame(FIN | PONG, payload, **options)


def close(code=None, reason=b""):
    return frame(FIN | CLOSE, b"" if code is None else struct.pack("!H", code) + reason)


def fragments(parts, opcode=TEXT):
    """One frame for each part of a message."""
    last = len(parts) - 1
    return [frame((FIN if at == last else 0) | (CONTINUATION if at else opcode), part)
            for at, part in enumerate(parts)]


def command(ref, size=0):
    """A command that is refused with 404, and whose answer repeats `ref`: it shows what has arrived."""
    made = json.dumps({"type": "unsubscribe", "sub": "none", "ref": ref}, ensure_ascii=False)
    return made.encode().ljust(size)
