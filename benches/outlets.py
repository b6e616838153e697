"""Compares WebSockets and gRPC with the same streams over server-sent events: memory of idle streams, and CPU
time for each delivery. `scripts/bench outlets` builds the gateway and runs this.

    python3 benches/outlets.py PROGRAM [--idle 10000] [--streams 1000] [--events 200] [--rounds 5]

WebSockets are beside server-sent events over HTTP/1.1, one stream on each connection. gRPC is beside them over
HTTP/2, 1,000 streams on each connection. The gateway has one worker and, in turn, only streams of one kind. Memory
is the proportional set size (smaps_rollup). CPU is the time of all threads (schedstat) from the first push to the
last delivery, pushes included. Each delivery is counted: a lost or a doubled one ends the run.
"""

import argparse
import base64
import contextlib
import http.client
import json
import os
import pathlib
import resource
import select
import socket
import statistics
import subprocess
import threading
import time

HEADS = {
    "server-sent events": "GET /events?topic=orders HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "WebSockets": "GET /ws?topic=orders HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\n"
                  "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
                  "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
}
# Heads and bodies of requests over HTTP/2. The body is a message of gRPC: no compression, its length, and
# SubscribeRequest { topics: ["orders"] }.
HTTP2 = {
    "server-sent events over HTTP/2": ([(":method", "GET"), (":scheme", "http"), (":authority", "localhost"),
                                        (":path", "/events?topic=orders")], b""),
    "gRPC": ([(":method", "POST"), (":scheme", "http"), (":authority", "localhost"),
              (":path", "/stream_events.v1.StreamEvents/Subscribe"), ("te", "trailers"),
              ("content-type", "application/grpc")], b"\0\0\0\0\x08\x0a\x06orders"),
}
# In the first message of each stream once.
FIRST = {"server-sent events": b"stream-open", "WebSockets": b'"open"',
         "server-sent events over HTTP/2": b"stream-open", "gRPC": b"orders"}
PAIRS = [("server-sent events", "WebSockets"), ("server-sent events over HTTP/2", "gRPC")]
# In each event once, and in nothing else.
MARK = b"|mark|"
DATA = json.dumps({"text": MARK.decode() + "x" * 175}).encode()
# Streams on one connection of HTTP/2: the gateway's limit (--http2-streams-max).
STREAMS_MAX = 1000
# Seconds after which memory is looked at.
REST = 2


@contextlib.contextmanager
def gateway(program):
    """Starts a gateway. Gives its process id and its port."""
    command = [program, "serve", "--listen", "127.0.0.1:0", "--ops-listen", "off", "--workers", "1",
               "--push-auth", "none", "--read-auth", "anonymous", "--subscribers-max", "50000",
               "--keep-alive", "5 min", "--log-format", "json"]
    environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": "131072", "MALLOC_TRIM_THRESHOLD_": "131072"}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment)
    try:
        for line in process.stdout:
            if b'"message":"listening"' in line:
                break
        # Else the pipe fills, and the gateway waits.
        threading.Thread(target=process.stdout.read, daemon=True).start()
        yield process.pid, int(json.loads(line)["listen"].rsplit(":", 1)[1])
    finally:
        process.kill()
        process.wait()


class Source:
    """A connection, which counts a text in what it receives."""

    def __init__(self, port, text):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=30)
        self.text, self.tail = text, b""

    def receive(self):
        """Receives once, and returns how often the text came. It may be cut by the end of a part."""
        part = self.socket.recv(1 << 16)
        assert part, f"closed after {self.tail}"
        received = self.tail + part
        self.tail = received[len(received) - len(self.text) + 1:]
        return received.count(self.text)

    def count(self, text):
        self.text, self.tail = text, b""


def frame(kind, flags, stream, payload):
    """A frame of HTTP/2 (RFC 9113, section 4.1)."""
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


def literal(name, value):
    """A field of a head that no table knows (RFC 7541, section 6.2.2)."""
    texts = [text.encode() for text in (name, value)]
    assert all(len(text) < 127 for text in texts)
    return b"\0" + b"".join(bytes([len(text)]) + text for text in texts)


def open_http2(port, kind, count):
    """Opens streams over HTTP/2 with windows that are never full, and waits for the first message of each."""
    head, body = HTTP2[kind]
    fields = b"".join(literal(*field) for field in head)
    sources = []
    for at in range(0, count, STREAMS_MAX):
        source = Source(port, FIRST[kind])
        streams = min(STREAMS_MAX, count - at)
        window = (2**31 - 1).to_bytes(4, "big")
        more = (2**31 - 1 - 65_535).to_bytes(4, "big")
        # SETTINGS_INITIAL_WINDOW_SIZE, and WINDOW_UPDATE of the connection.
        out = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, 0, 0, b"\0\x04" + window) + frame(8, 0, 0, more)
        source.socket.sendall(out + frame(4, 1, 0, b""))
        opened = 0
        for number in range(streams):
            stream = 2 * number + 1
            # END_HEADERS, and END_STREAM on the last frame.
            out = frame(1, 4 if body else 5, stream, fields)
            source.socket.sendall(out + (frame(0, 1, stream, body) if body else b""))
            while opened <= number:
                opened += source.receive()
        sources.append(source)
    return sources


def open_streams(port, kind, count):
    """Opens streams, and waits for the first message of each."""
    if kind in HTTP2:
        return open_http2(port, kind, count)
    sources = []
    for _ in range(count):
        source = Source(port, FIRST[kind])
        source.socket.sendall(HEADS[kind].encode())
        sources.append(source)
        while not source.receive():
            pass
    return sources


def pss(pid):
    text = pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text()
    return 1024 * next(int(line.split()[1]) for line in text.splitlines() if line.startswith("Pss:"))


def cpu_ns(pid):
    tasks = pathlib.Path(f"/proc/{pid}/task").iterdir()
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks)


def memory(program, kind, count):
    """Bytes for each idle stream."""
    with gateway(program) as (pid, port):
        for source in open_streams(port, kind, 50):
            source.socket.close()
        time.sleep(REST)
        before = pss(pid)
        sources = open_streams(port, kind, count)
        time.sleep(REST)
        after = pss(pid)
        for source in sources:
            source.socket.close()
    return (after - before) / count


def read_all(sources, poll, expected):
    """Reads until so many events have arrived in all."""
    seen = 0
    while seen < expected:
        ready = poll.poll(30)
        assert ready, f"{seen} events of {expected}"
        for number, _ in ready:
            seen += sources[number].receive()
    assert seen == expected, f"{seen} events, not {expected}"


def cpu(program, kind, count, events):
    """Microseconds of CPU for each delivery."""
    with gateway(program) as (pid, port):
        sources = {source.socket.fileno(): source for source in open_streams(port, kind, count)}
        poll = select.epoll()
        for number, source in sources.items():
            source.count(MARK)
            poll.register(number, select.EPOLLIN)
        pushes = http.client.HTTPConnection("127.0.0.1", port)
        data = base64.b64encode(DATA).decode()

        def push(name, many):
            for at in range(many):
                body = json.dumps({"message": {"data": data, "messageId": f"{name}{at}"}})
                pushes.request("POST", "/push/orders", body)
                answer = pushes.getresponse()
                answer.read()
                assert answer.status == 204, answer.status
                # One at a time: no two events share a write.
                read_all(sources, poll, count)

        push("warm-up", 20)
        before = cpu_ns(pid)
        push("event", events)
        return (cpu_ns(pid) - before) / 1000 / (count * events)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("program")
    for name, default in (("idle", 10_000), ("streams", 1_000), ("events", 200), ("rounds", 5)):
        parser.add_argument(f"--{name}", type=int, default=default)
    asked = parser.parse_args()
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    for plain, other in PAIRS:
        of = {kind: memory(asked.program, kind, asked.idle) for kind in (plain, other)}
        for kind, bytes_each in of.items():
            print(f"{kind}: {bytes_each:.0f} bytes for each of {asked.idle} idle streams", flush=True)
        rounds = []
        for _ in range(asked.rounds):
            times = {kind: cpu(asked.program, kind, asked.streams, asked.events) for kind in (plain, other)}
            rounds.append(times[other] / times[plain])
            print(", ".join(f"{kind}: {time:.2f} µs for each delivery" for kind, time in times.items()),
                  f"ratio {rounds[-1]:.2f}", flush=True)
        print(f"{other}: median of the ratios: {statistics.median(rounds):.2f} "
              f"({min(rounds):.2f} to {max(rounds):.2f})", flush=True)


if __name__ == "__main__":
    main()
