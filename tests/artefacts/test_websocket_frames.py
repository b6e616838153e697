"""`GET /ws` answers each case of the table as wsproto does, or as the table says."""

import asyncio
import json
import unittest

from wsproto.frame_protocol import FrameProtocol, Opcode, ParseFailed

import gateway
import websocket_frames as f
from websocket_cases import CASES, EARLY
from websocket_oracle import HANDSHAKE, Answers, judge

PARALLEL = 48
# Seconds that a case may take, with many others beside it.
TIME_MAX = 60
# What a client asks last: the answers to all before it have arrived when that to it has.
LAST = "the last"
# A close frame with a code that wsproto does not know, and so does not parse.
CLOSE_1014 = b"\x88\x02\x03\xf6"
# Between two segments, in seconds: they are to be two reads.
PAUSE = 0.005


class Client:
    """Reads what the gateway sends, with wsproto's parser of frames."""

    def __init__(self, reader, writer):
        self.reader, self.writer = reader, writer
        self.frames = FrameProtocol(client=True, extensions=[])
        self.answers, self.text = Answers(), ""

    async def read(self, is_done):
        """Reads until it is done, or the gateway closes its side. Says whether it is done."""
        while not is_done():
            received = await self.reader.read(65536)
            if not received:
                return False
            self.feed(received)
        return True

    def feed(self, received):
        if received.endswith(CLOSE_1014):
            received, self.answers.close = received[:-len(CLOSE_1014)], 1014
        self.frames.receive_bytes(received)
        for frame in self.frames.received_frames():
            assert self.answers.close in (None, 1014), f"behind the close frame: {frame}"
            match frame.opcode:
                case Opcode.PONG:
                    self.answers.pongs.append(bytes(frame.payload))
                case Opcode.CLOSE:
                    self.answers.close = int(frame.payload[0])
                case Opcode.TEXT:
                    self.text += frame.payload
                    if frame.message_finished:
                        self.record(json.loads(self.text))
                        self.text = ""
                case other:
                    assert other is Opcode.PING, other

    def record(self, record):
        if record["type"] == "error":
            self.answers.errors.append((record["status"], record.get("ref")))
        else:
            assert record["type"] == "open", record


async def answers_to(address, path, segments, expected, is_within):
    """Sends the segments. Returns the answers, and whether the gateway closed its side when it had to."""
    reader, writer = await asyncio.open_connection(*address)
    client = Client(reader, writer)
    try:
        writer.write(HANDSHAKE % path)
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 101 "), head
        for segment in segments:
            writer.write(segment)
            await writer.drain()
            await asyncio.sleep(PAUSE if len(segment) > 1 else 0)
        if expected.close is None:
            # Within a message, no command can follow.
            writer.write(f.ping(LAST.encode()) + (b"" if is_within else f.text(f.command(LAST))))
            expected.pongs.append(LAST.encode())
            expected.errors += [] if is_within else [(404, LAST)]
            await client.read(lambda: len(client.answers.pongs) == len(expected.pongs)
                              and len(client.answers.errors) == len(expected.errors))
            return client.answers, True
        # It ends with the gateway's FIN: an error such as a reset fails the case.
        return client.answers, not await client.read(lambda: False)
    finally:
        writer.close()


def chopped(segments):
    """The same bytes in pieces of one byte; of a large case, in 300 pieces."""
    sent = b"".join(segments)
    size = max(1, len(sent) // 300)
    return [sent[at:at + size] for at in range(0, len(sent), size)]


async def problem_of(case, address, path, is_chopped):
    """What is wrong with a case, in words, or None."""
    words, expected, is_within = judge(case.segments)
    if case.differs:
        if case.differs is EARLY:
            expected.pongs.clear()
        elif expected.close == case.differs[0]:
            return "wsproto does the same: the table is wrong"
        expected.close = case.differs[0]
        expected.errors = [error for error in expected.errors if error[0] != "binary"]
    segments = chopped(case.segments) if is_chopped else case.segments
    try:
        async with asyncio.timeout(TIME_MAX):
            got, has_ended = await answers_to(address, path, segments, expected, is_within)
    except (OSError, AssertionError, TimeoutError, ParseFailed) as error:
        return f"{type(error).__name__} {error}; expected {expected}"
    # A command that is not carried out when the connection fails has no answer.
    fails = words and words[-1].startswith("fails") or case.differs
    if fails and got.errors == expected.errors[:len(got.errors)]:
        expected.errors = got.errors
    if got != expected or not has_ended:
        return f"expected {expected}, got {got}{'' if has_ended else ', and no end'}"
    return None


async def problems(url):
    """The cases that the gateway answers otherwise, whole and chopped, without and with a stream."""
    host, port = url.removeprefix("http://").split(":")
    limit = asyncio.Semaphore(PARALLEL)

    async def one(case, path, is_chopped):
        async with limit:
            problem = await problem_of(case, (host, int(port)), path, is_chopped)
        how = "chopped" if is_chopped else "whole"
        return problem and f"{case.section}: {case.name} ({path.decode()}, {how}): {problem}"

    runs = [one(case, path, is_chopped) for case in CASES
            for path, is_chopped in ((b"/ws?topic=orders", False), (b"/ws", True))]
    return [problem for problem in await asyncio.gather(*runs) if problem]


@unittest.skipUnless(gateway.BINARY, gateway.NO_BINARY)
class Frames(unittest.TestCase):
    def test_each_case_of_the_table_is_answered_as_wsproto_does(self):
        with gateway.gateway(["dev"], {"STREAM_EVENTS_LOG_FORMAT": "json"}) as (_, url, _):
            found = asyncio.run(problems(url))
        for problem in found:
            print(problem)
        self.assertEqual(len(found), 0, f"of {2 * len(CASES)} cases: {found[:3]}")
        print(f"websocket: {2 * len(CASES)} cases of {len({case.section for case in CASES})} sections")

    def test_a_message_that_is_not_utf8_fails_at_the_end_of_its_frame(self):
        """wsproto fails at the byte. RFC 6455, section 8.1, leaves the moment open."""
        asyncio.run(self.fails_at_the_end())

    async def fails_at_the_end(self):
        frame = f.text(b"{\xff}")
        _, expected, _ = judge([frame[:-1]])
        self.assertEqual(expected.close, 1007)
        with gateway.gateway(["dev"], {"STREAM_EVENTS_LOG_FORMAT": "json"}) as (_, url, _):
            host, port = url.removeprefix("http://").split(":")
            got, has_ended = await answers_to((host, port), b"/ws", [frame[:-1], frame[-1:]], expected, False)
        self.assertEqual((got, has_ended), (expected, True))


if __name__ == "__main__":
    unittest.main()
