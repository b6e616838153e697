"""The table of what a client may send over a WebSocket and what it may not, by the sections of the Autobahn
suite. wsproto is the oracle of each case; `differs` says where the gateway does something else, and why.

    python tests/artefacts/websocket_cases.py      prints the table
"""

import dataclasses
import re

import websocket_frames as f
from websocket_oracle import judge

BINARY = (1003, "the gateway takes no binary messages: commands are JSON (RFC 6455, 7.4.1: 1003)")
EARLY = (1007, "no byte can follow ed and one from a0 that is UTF-8 (RFC 3629, section 4): wsproto fails later")
LARGE = (1009, "a message has at most 64 KiB (RFC 6455, 7.4.1: 1009)")
REGISTERED = (1014, "1014 is registered by IANA (RFC 6455, 7.4.2), wsproto does not know it")
# The largest message.
MESSAGE_MAX = 64 * 1024


@dataclasses.dataclass
class Case:
    section: str
    name: str
    # What is sent, each with a pause before it.
    segments: list
    # The gateway's close code where it does not do as wsproto does, and the reason.
    differs: tuple | None = None


def framing():
    for size in (0, 125, 126, 127, 128, 65535, MESSAGE_MAX, MESSAGE_MAX + 1):
        large = LARGE if MESSAGE_MAX < size else None
        yield f"text of {size} bytes", [f.text(b"*" * size)], large
        if size >= 125:
            yield f"command of {size} bytes", [f.text(f.command("é", size))], large
        yield f"binary of {size} bytes", [f.frame(f.FIN | f.BINARY, b"\xfe" * size)], large or BINARY
    yield "binary in fragments", f.fragments([b"a", b"b"], f.BINARY), BINARY
    yield "binary, its first fragment", [f.frame(f.BINARY, b"a")], BINARY
    for width, size in ((2, 0), (2, 125), (8, 0), (8, 125), (8, 126), (8, 65535)):
        payload = f.command(size).ljust(size)[:size]
        yield f"length {size} in {width} bytes", [f.text(payload, width=width)], None
    for name, announced in (("with the top bit", 1 << 63), ("of all bits", (1 << 64) - 1)):
        yield f"length {name}", [f.frame(f.FIN | f.TEXT, announced=announced)], None
    for announced in (MESSAGE_MAX + 1, 1 << 31, 1 << 32, (1 << 63) - 1):
        # wsproto waits for the rest.
        yield f"length {announced}, no payload", [f.frame(f.FIN | f.TEXT, announced=announced)], LARGE
    for opcode in (f.TEXT, f.BINARY, f.PING, f.PONG, f.CLOSE):
        yield f"opcode {opcode}, not masked", [f.frame(f.FIN | opcode, b"{}", mask=None)], None
    for mask in (b"\0\0\0\0", b"\xff\xff\xff\xff", b"\x01\x02\x03\x04"):
        yield f"mask {mask.hex()}", [f.text(f.command("é 😀"), mask=mask)], None
    for tail in range(8):
        yield f"payload of a mask and {tail} bytes", [f.text(f.command("x" * tail))], None


def pings():
    for size in (0, 1, 16, 124, 125):
        yield f"ping of {size} bytes", [f.ping(b"\xfe" * size)], None
    yield "ping of all bytes", [f.ping(bytes(range(125))), f.ping(bytes(range(125, 250)))], None
    for opcode in (f.PING, f.PONG, f.CLOSE):
        for size in (126, 127, 65535, 65536):
            yield f"opcode {opcode} of {size} bytes", [f.frame(f.FIN | opcode, b"\x03" * size)], None
        yield f"opcode {opcode} of 5 bytes, its length in 2", \
            [f.frame(f.FIN | opcode, b"\x03\xe8...", width=2)], None
        yield f"opcode {opcode} of 5 bytes, its length in 8", \
            [f.frame(f.FIN | opcode, b"\x03\xe8...", width=8)], None
        yield f"opcode {opcode}, fragmented", [f.frame(opcode, b"\x03\xe8"), f.frame(f.FIN, b"")], None
        yield f"opcode {opcode}, fragmented and empty", [f.frame(opcode)], None
    for payload in (b"", b"unasked"):
        yield f"pong of {len(payload)} bytes", [f.pong(payload)], None
    yield "pong, then ping", [f.pong(b"unasked"), f.ping(b"asked")], None
    numbered = [f.ping(b"%d" % number) for number in range(10)]
    yield "10 pings, a segment each", numbered, None
    yield "10 pings in one segment", [b"".join(numbered)], None
    yield "pings and commands by turns in one segment", \
        [b"".join(f.ping(b"%d" % n) + f.text(f.command(n)) for n in range(20))], None
    yield "ping and close in one segment", [f.ping(b"a") + f.close(1000)], None


def reserved_bits():
    for bits in range(f.RSV3, f.FIN, f.RSV3):
        for opcode in (f.TEXT, f.BINARY, f.CONTINUATION, f.CLOSE, f.PING, f.PONG):
            yield f"bits {bits:#x} with opcode {opcode}", [f.frame(f.FIN | bits | opcode, b"")], None
    yield "bits behind a command", [f.text(f.command(1)), f.frame(f.FIN | f.RSV1 | f.TEXT, b"a")], None
    yield "bits in a fragment", [f.frame(f.TEXT, b"a"), f.frame(f.FIN | f.RSV2, b"b")], None
    yield "bits behind a ping", [f.ping(b"a") + f.frame(f.FIN | f.RSV3 | f.PING, b"b")], None


def opcodes():
    for opcode in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15):
        for payload in (b"", b"reserved"):
            yield f"opcode {opcode} of {len(payload)} bytes", [f.frame(f.FIN | opcode, payload)], None
        yield f"opcode {opcode}, no last fragment", [f.frame(opcode, b"a")], None
        yield f"opcode {opcode} behind a command and a ping", \
            [f.text(f.command(1)), f.frame(f.FIN | opcode, b"a"), f.ping(b"late")], None


def fragmentation():
    parts = [b'{"type":"unsubscribe",', b'"sub":"none","ref":', b'"\xc3\xa9"}']
    yield "2 fragments", f.fragments([parts[0], b"".join(parts[1:])]), None
    yield "3 fragments, a segment each", f.fragments(parts), None
    yield "3 fragments in one segment", [b"".join(f.fragments(parts))], None
    yield "empty fragments", f.fragments([b"", b"", *parts, b"", b""]), None
    yield "fragments that are all empty", f.fragments([b"", b"", b""]), None
    whole = b"".join(parts)
    yield "a fragment for each byte", f.fragments([whole[at:at + 1] for at in range(len(whole))]), None
    for name, control in (("ping", f.ping(b"between")), ("pong", f.pong(b"between")),
                          ("3 pings", b"".join(f.ping(b"%d" % n) for n in range(3)))):
        made = f.fragments(parts)
        between = [made[0], control, made[1], control, made[2]]
        yield f"{name} between fragments, a segment each", between, None
        yield f"{name} between fragments in one segment", [b"".join(between)], None
    yield "close between fragments", [f.fragments(parts)[0], f.close(1000), f.fragments(parts)[2]], None
    yield "the first fragment of a message, and no more", [f.fragments(parts)[0]], None
    for fin in (0, f.FIN):
        for payload in (b"", b"lost"):
            lost = f.frame(fin, payload)
            name = f"continuation {fin:#x} of {len(payload)} bytes"
            yield f"{name} without a start", [lost], None
            yield f"{name} behind a command", [f.text(f.command(1)), lost], None
            yield f"{name} behind a message of fragments", [*f.fragments(parts), lost], None
    for opcode in (f.TEXT, f.BINARY):
        for fin in (0, f.FIN):
            yield f"opcode {opcode} {fin:#x} within a message", \
                [f.frame(f.TEXT, b"{"), f.frame(fin | opcode, b"}")], None
    for size in (MESSAGE_MAX, MESSAGE_MAX + 1):
        made = f.command("é", size)
        yield f"fragments of {size} bytes", \
            f.fragments([made[at:at + 8000] for at in range(0, size, 8000)]), \
            LARGE if MESSAGE_MAX < size else None


# Autobahn's 6.2 to 6.23: what decoders get wrong.
VALID = {
    "Greek": "κόσμε", "one of each length": "aé€😀", "U+0000": "\0", "U+007F": "\x7f", "U+0080": "\x80",
    "U+07FF": "\u07ff", "U+0800": "\u0800", "U+D7FF": "\ud7ff", "U+E000": "\ue000",
    "U+FFFD": "\ufffd", "U+FFFE": "\ufffe", "U+FFFF": "\uffff", "U+10000": "\U00010000",
    "U+1FFFE": "\U0001fffe", "U+10FFFF": "\U0010ffff", "U+FFF9 to U+FFFC": "\ufff9\ufffa\ufffb\ufffc",
    "byte order mark": "\ufeffa", "combining": "e\u0301\u0302",
}
INVALID = {
    "a surrogate in text": "κόσμε".encode() + b"\xed\xa0\x80edited",
    "U+110000": b"\xf4\x90\x80\x80", "5 bytes, first": b"\xf8\x88\x80\x80\x80",
    "6 bytes, first": b"\xfc\x84\x80\x80\x80\x80", "U+1FFFFF": b"\xf7\xbf\xbf\xbf",
    "5 bytes, last": b"\xfb\xbf\xbf\xbf\xbf", "6 bytes, last": b"\xfd\xbf\xbf\xbf\xbf\xbf",
    "continuation 80": b"\x80", "continuation bf": b"\xbf", "continuations": bytes(range(0x80, 0xc0)),
    "lonely starts of 2": bytes(range(0xc2, 0xe0)), "lonely start of 3": b"\xe1 ", "lonely start of 4": b"\xf1 ",
    "last byte missing of 2": b"\xc3a", "last byte missing of 3": b"\xe2\x82a",
    "last byte missing of 4": b"\xf0\x9f\x98a", "incomplete, one behind another": b"\xc3\xe2\x82\xf0\x9f\x98",
    "fe": b"\xfe", "ff": b"\xff", "fe fe ff ff": b"\xfe\xfe\xff\xff",
    "overlong 2": b"\xc0\xaf", "overlong 3": b"\xe0\x80\xaf", "overlong 4": b"\xf0\x80\x80\xaf",
    "overlong 5": b"\xf8\x80\x80\x80\xaf", "overlong 6": b"\xfc\x80\x80\x80\x80\xaf",
    "overlong 2, highest": b"\xc1\xbf", "overlong 3, highest": b"\xe0\x9f\xbf",
    "overlong 4, highest": b"\xf0\x8f\xbf\xbf", "overlong U+0000": b"\xc0\x80",
    "surrogate d800": b"\xed\xa0\x80", "surrogate db7f": b"\xed\xad\xbf", "surrogate dc00": b"\xed\xb0\x80",
    "surrogate dfff": b"\xed\xbf\xbf", "surrogate pair": b"\xed\xa0\x80\xed\xb0\x80", "f5": b"\xf5\x80\x80\x80",
}


def cuts(name, payload, begin, end):
    """A message whole, in two fragments, and in two TCP segments, cut at every byte from `begin` to `end`."""
    yield name, [f.text(payload)], None
    for at in range(begin, end + 1):
        yield f"{name}, fragments cut at {at}", f.fragments([payload[:at], payload[at:]]), None
        ping = [f.frame(f.TEXT, payload[:at]), f.ping(b"in"), f.frame(f.FIN, payload[at:])]
        is_early = re.search(rb"\xed[\xa0-\xbf]\Z", payload[:at])
        yield f"{name}, a ping at {at}", ping, EARLY if is_early else None
        sent = f.text(payload)
        header = len(sent) - len(payload)
        yield f"{name}, segments cut at {at}", [sent[:header + at], sent[header + at:]], None


def utf8():
    for name, characters in VALID.items():
        payload = f.command("").replace(b'""', b'"' + characters.encode() + b'"')
        begin = payload.index(characters.encode())
        yield from cuts(name, payload, begin, begin + len(characters.encode()))
        yield f"{name}, no command", [f.text(characters.encode())], None
    for name, part in INVALID.items():
        payload = f.command("")[:-2] + part + b'"}'
        begin = len(f.command("")) - 2
        yield from cuts(name, payload, begin, begin + min(len(part), 6))
        yield f"{name}, at the end", [f.text(part)], None
        yield f"{name}, not in the last fragment", [f.frame(f.TEXT, part + b"..")], None
    whole = "κόσμε€😀".encode()
    for at in range(len(whole) + 1):
        yield f"the first {at} bytes", [f.text(whole[:at])], None
        yield f"the first {at} bytes, not the last fragment", [f.frame(f.TEXT, whole[:at])], None


def closing():
    command = f.text(f.command(1))
    yield "a command, then close", [command, f.close(1000)], None
    yield "a command and close in one segment", [command + f.close(1000)], None
    yield "two close frames", [f.close(1000), f.close(1001)], None
    yield "two close frames in one segment", [f.close(1000) + f.close(1001)], None
    yield "a ping behind close", [f.close(1000) + f.ping(b"late")], None
    yield "a command behind close", [f.close(1000) + command], None
    yield "garbage behind close", [f.close(1000) + b"\xff" * 300], None
    yield "garbage", [b"\xff" * 64], None
    yield "a request of HTTP", [b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"], None
    yield "a fragment, close, and the last fragment", \
        [f.frame(f.TEXT, b"{"), f.close(1000), f.frame(f.FIN, b"}")], None
    yield "no code", [f.close()], None
    yield "one byte", [f.frame(f.FIN | f.CLOSE, b"\x03")], None
    for size in (0, 1, 122, 123, 124):
        yield f"reason of {size} bytes", [f.close(1000, b"*" * size)], None
    yield "reason of characters", [f.close(1000, "κόσμε€😀".encode())], None
    for name, part in INVALID.items():
        yield f"reason with {name}", [f.close(1000, part)], None
    yield "reason that ends within a character", [f.close(1000, b"\xe2\x82")], None
    codes = [*range(1000, 1018), 1100, 2000, 2999, 3000, 3999, 4000, 4999, 5000, 65535,
             0, 1, 999]
    for code in codes:
        for reason in (b"", b"why"):
            yield f"code {code}, reason of {len(reason)} bytes", [f.close(code, reason)], \
                REGISTERED if code == 1014 else None


SECTIONS = {"1 framing": framing, "2 pings and pongs": pings, "3 reserved bits": reserved_bits,
            "4 opcodes": opcodes, "5 fragmentation": fragmentation, "6 UTF-8": utf8, "7 closing": closing}
CASES = [Case(section, *case) for section, cases in SECTIONS.items() for case in cases()]

if __name__ == "__main__":
    for case in CASES:
        sent = " | ".join(part.hex() if len(part) < 40 else f"{part[:36].hex()}… ({len(part)})"
                          for part in case.segments)
        events, answers, _ = judge(case.segments)
        gateway = "gateway: close %d, since %s" % case.differs if case.differs else "gateway: the same"
        print(f"{case.section}: {case.name}\n    sent: {sent}\n    wsproto: {', '.join(events) or 'nothing'}; "
              f"close: {answers.close}\n    {gateway}")
