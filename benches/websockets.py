"""Compares WebSockets with the same streams over server-sent events: memory of idle streams, and CPU time
for each delivery. `scripts/bench websockets` builds the gateway and runs this.

    python3 benches/websockets.py PROGRAM [--idle 10000] [--streams 1000] [--events 200] [--rounds 5]

The gateway has one worker and, in turn, only streams of one kind. Memory is the proportional set size
(smaps_rollup). CPU is the time of all threads (schedstat) from the first push to the last delivery, pushes
included. Each delivery is counted: a lost or a doubled one ends the run.
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
FIRST = {"server-sent events": b"stream-open", "WebSockets": b'"open"'}
# In each event once, and in nothing else.
MARK = b"|"
DATA = json.dumps({"text": MARK.decode() + "x" * 180}).encode()
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


def open_streams(port, kind, count):
    """Opens streams, and waits for the first message of each."""
    streams = []
    for _ in range(count):
        stream = socket.create_connection(("127.0.0.1", port), timeout=30)
        stream.sendall(HEADS[kind].encode())
        streams.append(stream)
        received = b""
        while FIRST[kind] not in received:
            part = stream.recv(4096)
            assert part, f"{kind}: closed after {received}"
            received += part
    return streams


def pss(pid):
    text = pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text()
    return 1024 * next(int(line.split()[1]) for line in text.splitlines() if line.startswith("Pss:"))


def cpu_ns(pid):
    tasks = pathlib.Path(f"/proc/{pid}/task").iterdir()
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks)


def memory(program, kind, count):
    """Bytes for each idle stream."""
    with gateway(program) as (pid, port):
        for stream in open_streams(port, kind, 50):
            stream.close()
        time.sleep(REST)
        before = pss(pid)
        streams = open_streams(port, kind, count)
        time.sleep(REST)
        after = pss(pid)
        for stream in streams:
            stream.close()
    return (after - before) / count


def read_all(streams, poll, expected):
    """Reads until so many events have arrived in all."""
    seen = 0
    while seen < expected:
        ready = poll.poll(30)
        assert ready, f"{seen} events of {expected}"
        for number, _ in ready:
            seen += streams[number].recv(1 << 16).count(MARK)
    assert seen == expected, f"{seen} events, not {expected}"


def cpu(program, kind, count, events):
    """Microseconds of CPU for each delivery."""
    with gateway(program) as (pid, port):
        streams = {stream.fileno(): stream for stream in open_streams(port, kind, count)}
        poll = select.epoll()
        for number in streams:
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
                read_all(streams, poll, count)

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
    plain, websockets = HEADS
    of = {kind: memory(asked.program, kind, asked.idle) for kind in HEADS}
    for kind, bytes_each in of.items():
        print(f"{kind}: {bytes_each:.0f} bytes for each of {asked.idle} idle streams")
    print(f"difference: {of[websockets] - of[plain]:.0f} bytes")
    rounds = []
    for _ in range(asked.rounds):
        times = {kind: cpu(asked.program, kind, asked.streams, asked.events) for kind in HEADS}
        rounds.append(times[websockets] / times[plain])
        print(", ".join(f"{kind}: {time:.2f} µs for each delivery" for kind, time in times.items()),
              f"ratio {rounds[-1]:.2f}", flush=True)
    print(f"median of the ratios: {statistics.median(rounds):.2f} ({min(rounds):.2f} to {max(rounds):.2f})")


if __name__ == "__main__":
    main()
