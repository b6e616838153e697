"""Compares messages that are pulled with messages that are pushed: CPU time of the gateway for each message,
and messages per second. `scripts/bench pull` builds the gateway and runs this.

    PYTHON benches/pull.py PROGRAM [--messages 100000] [--bytes 200] [--rounds 5]

PYTHON has google-cloud-pubsub (the environment of scripts/check-artefacts). The gateway has one worker, core 0,
and no readers. CPU is the time of all its threads (schedstat) from the first to the last message. Pulled
messages come from the fake Pub/Sub of the tests, and pushed ones from one thread with 16 connections and a
request under way on each, both on core 1: the sender may be the limit of the messages per second, so its own
share of its core is shown.
"""

import argparse
import base64
import contextlib
import json
import os
import pathlib
import select
import socket
import statistics
import subprocess
import sys
import threading
import time

HERE = pathlib.Path(__file__).resolve().parent
FAKE = HERE.parent / "tests/artefacts/pubsub_fake.py"
SUBSCRIPTION = "projects/bench/subscriptions/orders"
CONNECTIONS = 16
WARM_UP = 5_000
# Seconds within which all messages of a round have to be acked.
PATIENCE = 300
HEAD = "POST /push/orders HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: "


@contextlib.contextmanager
def gateway(program, *options):
    """Starts a gateway. Gives its process id and its port."""
    command = ["taskset", "-c", "0", program, "serve", "--listen", "127.0.0.1:0", "--ops-listen", "off",
               "--workers", "1", "--push-auth", "none", "--read-auth", "anonymous", "--log-format", "json",
               *options]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
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


@contextlib.contextmanager
def fake():
    """Starts the fake Pub/Sub. Gives its process id, its address, and a function that sends it a command."""
    process = subprocess.Popen(["taskset", "-c", "1", sys.executable, "-B", FAKE], text=True,
                               stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def send(**command):
        process.stdin.write(json.dumps(command | {"subscription": SUBSCRIPTION}) + "\n")
        process.stdin.flush()
        return json.loads(process.stdout.readline())
    try:
        port = json.loads(process.stdout.readline())["port"]
        send(do="create")
        yield process.pid, f"http://127.0.0.1:{port}", send
    finally:
        process.kill()
        process.wait()


def cpu_s(pid):
    tasks = pathlib.Path(f"/proc/{pid}/task").iterdir()
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9


def measure(pid, sender, count, run):
    """Microseconds of CPU for each message, messages per second, and the sender's share of its core."""
    before, sent_before, start = cpu_s(pid), cpu_s(sender), time.monotonic()
    run()
    taken = time.monotonic() - start
    return ((cpu_s(pid) - before) * 1e6 / count, count / taken, (cpu_s(sender) - sent_before) / taken)


def pulled(program, count, size, keys):
    with fake() as (sender, address, send):
        options = ("--pull", f"{SUBSCRIPTION}=orders", "--pull-endpoint", address)
        with gateway(program, *options) as (pid, _):
            def run(first, many):
                send(do="generate", count=many, size=size, keys=keys, first=first)
                end = time.monotonic() + PATIENCE
                while send(do="state")["acked"] < first + many:
                    assert time.monotonic() < end, f"not acked within {PATIENCE} s: {send(do='state')}"
                    time.sleep(0.01)
            run(0, WARM_UP)
            return measure(pid, sender, count, lambda: run(WARM_UP, count))


def push_all(port, first, count, size):
    """Pushes messages over all connections, each with a request under way."""
    sockets, poll = {}, select.epoll()
    numbers = iter(range(first, first + count))

    def send(stream):
        number = next(numbers, None)
        if number is not None:
            text = f"{number}|".encode()
            data = base64.b64encode(text + b"." * (size - len(text))).decode()
            message = {"data": data, "messageId": str(number), "publishTime": "2026-01-01T00:00:00Z"}
            body = json.dumps({"message": message, "subscription": SUBSCRIPTION})
            stream.sendall(f"{HEAD}{len(body)}\r\n\r\n{body}".encode())

    for _ in range(CONNECTIONS):
        stream = socket.create_connection(("127.0.0.1", port))
        stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sockets[stream.fileno()] = stream
        poll.register(stream, select.EPOLLIN)
        send(stream)
    answered = 0
    while answered < count:
        for ready, _ in poll.poll(30):
            answer = sockets[ready].recv(4096)
            assert answer.startswith(b"HTTP/1.1 204"), answer
            answered += 1
            send(sockets[ready])
    for stream in sockets.values():
        stream.close()


def pushed(program, count, size):
    with gateway(program) as (pid, port):
        push_all(port, 0, WARM_UP, size)
        return measure(pid, os.getpid(), count, lambda: push_all(port, WARM_UP, count, size))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("program")
    for name, default in (("messages", 100_000), ("bytes", 200), ("rounds", 5)):
        parser.add_argument(f"--{name}", type=int, default=default)
    asked = parser.parse_args()
    # The pushes come from this process.
    os.sched_setaffinity(0, {1})
    kinds = {"pushed": lambda: pushed(asked.program, asked.messages, asked.bytes),
             "pulled": lambda: pulled(asked.program, asked.messages, asked.bytes, 0),
             "pulled, 100 keys": lambda: pulled(asked.program, asked.messages, asked.bytes, 100)}
    ratios = {name: [] for name in kinds}
    for _ in range(asked.rounds):
        of = {name: run() for name, run in kinds.items()}
        for name, (cpu, rate, sender) in of.items():
            ratios[name].append(cpu / of["pushed"][0])
            print(f"{name}: {cpu:.1f} µs of CPU for each message, {rate:,.0f} messages per second,"
                  f" sender {100 * sender:.0f} % of its core", flush=True)
    for name, values in ratios.items():
        print(f"{name}: CPU beside pushed {statistics.median(values):.2f}"
              f" ({min(values):.2f} to {max(values):.2f})")


if __name__ == "__main__":
    main()
