"""The fake Pub/Sub, gateways that pull from it, and readers, for the tests of streaming pull."""

import contextlib
import http.client
import json
import os
import pathlib
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time

import gateway
from gateway import PATIENCE
from ports import free_port

HERE = pathlib.Path(__file__).parent
SUBSCRIPTION = "projects/test/subscriptions/orders"
TOPIC = "orders"
NO_PULL = "that a gateway pulls, since none is built that can (cargo build --features pull)"


def _can_pull():
    """Tells whether the gateway is built with the feature: without it, it says so before all else."""
    if not gateway.BINARY:
        return False
    said = subprocess.run([gateway.BINARY, "serve", "--pull", SUBSCRIPTION], capture_output=True, text=True)
    return "cannot pull" not in said.stdout + said.stderr


CAN_PULL = _can_pull()


def seed(name):
    """The seed of a random test, which SEED sets and each run prints."""
    number = int(os.environ.get("SEED", random.randrange(1 << 32)))
    print(f"{name}: SEED={number}", flush=True)
    return number


def until(what, done, limit=PATIENCE):
    """Waits until `done` returns something true, and returns it."""
    end = time.monotonic() + limit
    while not (found := done()):
        if time.monotonic() > end:
            raise AssertionError(f"not within {limit} s: {what}")
        time.sleep(0.02)
    return found


class PubSub:
    """The fake as a process. Its commands are methods: `pubsub.state()`, `pubsub.fault(deny=True)`."""

    def __init__(self, stack, *arguments, port=0, **subscription):
        command = [sys.executable, "-B", HERE / "pubsub_fake.py", "--port", str(port), *arguments]
        self.stack = stack
        self.process = stack.enter_context(subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))
        # The fake ends with its standard input.
        stack.callback(self.process.stdin.close)
        self.address = f"127.0.0.1:{json.loads(self.process.stdout.readline())['port']}"
        self.call("create", topic=TOPIC, **subscription)

    def call(self, do, subscription=SUBSCRIPTION, **options):
        return self._send({"do": do, "subscription": subscription} | options)

    def _send(self, command):
        self.process.stdin.write(json.dumps(command) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def publish(self, *texts, key="", **options):
        messages = [{"text": text, "key": key} | options for text in texts]
        return self.call("publish", messages=messages)

    def generate(self, count, **options):
        self.call("generate", count=count, **options)

    def fault(self, **options):
        self._send({"do": "fault"} | options)

    def allow(self, **who):
        self._send({"do": "allow"} | who)

    def state(self):
        return self.call("state")

    def acks(self):
        return self.call("acks")

    def freeze(self):
        """Stops the process, which keeps its connections: the kernel still accepts new ones."""
        self.process.send_signal(signal.SIGSTOP)
        self.stack.callback(self.resume)

    def resume(self):
        self.process.send_signal(signal.SIGCONT)

    def until_acked(self, count, limit=PATIENCE):
        """Waits until so many messages are acked, and returns the state."""
        def done():
            state = self.state()
            return state if state["acked"] >= count else None
        try:
            return until(f"{count} acked", done, limit)
        except AssertionError as error:
            raise AssertionError(f"{error}: {self.state()}") from None


class Gateway:
    """`serve`, which pulls from a fake. `variables` are variables of its environment that are no settings."""

    def __init__(self, stack, pubsub, port=0, variables=(), **settings):
        self.port = port or free_port()
        self.ops = free_port()
        environment = {name: text for name, text in os.environ.items()
                       if not name.startswith(("STREAM_EVENTS_", "PUBSUB_"))}
        own = {"LISTEN": f"127.0.0.1:{self.port}", "OPS_LISTEN": f"127.0.0.1:{self.ops}",
               "PUSH_AUTH": "none", "READ_AUTH": "anonymous", "WORKERS": "1", "LOG_FORMAT": "json",
               "DRAIN_DELAY": "0 s", "DRAIN_TIMEOUT": "1 s", "PULL": f"{SUBSCRIPTION}={TOPIC}"} | settings
        environment |= {f"STREAM_EVENTS_{name}": text for name, text in own.items()}
        environment |= {"PUBSUB_EMULATOR_HOST": pubsub.address} | dict(variables)
        self.log = []
        self.process = subprocess.Popen([gateway.BINARY, "serve"], env=environment, text=True,
                                        stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        stack.callback(self.kill)
        threading.Thread(target=self._read_log, daemon=True).start()

    def _read_log(self):
        self.log.extend(self.process.stdout)

    def until_ready(self):
        try:
            until("the gateway is ready", lambda: self.status("/readyz") == 200)
        except AssertionError as error:
            raise AssertionError(f"{error}: {''.join(self.log[-20:])}") from None

    def kill(self):
        self.process.kill()
        self.process.wait()

    def terminate(self):
        """Sends SIGTERM and returns the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(PATIENCE)

    def _get(self, path):
        connection = http.client.HTTPConnection("127.0.0.1", self.ops, timeout=10)
        with contextlib.closing(connection):
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()

    def status(self, path):
        """The status of an answer. 0 without one."""
        try:
            return self._get(path)[0]
        except OSError:
            return 0

    def metric(self, name):
        """The sum of a metric over its labels, or of those whose line begins with `name`."""
        lines = self._get("/metrics")[1].splitlines()
        values = [float(line.rsplit(" ", 1)[1]) for line in lines
                  if line.startswith(name) and line[len(name):len(name) + 1] in ("", " ", "{")]
        return sum(values) if values else None

    def memory(self):
        """Resident bytes now, and the most so far."""
        text = pathlib.Path(f"/proc/{self.process.pid}/status").read_text()
        sizes = {line.split(":")[0]: line.split()[1] for line in text.splitlines() if "kB" in line}
        return int(sizes["VmRSS"]) * 1024, int(sizes["VmHWM"]) * 1024


class Reader:
    """A reader of server-sent events that resumes at the next gateway when its stream ends. It reads from
    when it is made.

    `events` has (id, data) of each event, in order; `gaps` the data of each stream-gap.
    """

    def __init__(self, stack, *ports, query=""):
        self.ports, self.query, self.events, self.gaps = ports, query, [], []
        self.last_id, self.is_over = None, False
        threading.Thread(target=self._run, daemon=True).start()
        stack.callback(self._end)
        until("the stream is open", lambda: self.last_id)

    def _end(self):
        self.is_over = True

    def _run(self):
        at = 0
        while not self.is_over:
            with contextlib.suppress(OSError, http.client.HTTPException):
                self._read(self.ports[at % len(self.ports)])
            at += 1
            time.sleep(0.05)

    def _read(self, port):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        headers = {"Last-Event-ID": self.last_id} if self.last_id else {}
        with contextlib.closing(connection):
            connection.request("GET", "/events" + ("" if self.last_id else self.query), headers=headers)
            answer = connection.getresponse()
            fields = {}
            while not self.is_over and (line := answer.readline()):
                line = line.rstrip(b"\n")
                if line:
                    name, _, value = line.partition(b":")
                    fields[name] = value.removeprefix(b" ")
                    continue
                self._take(fields)
                fields = {}

    def _take(self, fields):
        name = fields.get(b"event", b"message")
        if b"id" in fields and fields[b"id"]:
            self.last_id = fields[b"id"].decode()
        if name == b"stream-gap":
            self.gaps.append(fields[b"data"].decode())
        elif not name.startswith(b"stream-") and b"data" in fields:
            self.events.append((self.last_id, fields[b"data"]))

    def until_events(self, count, limit=PATIENCE):
        try:
            until(f"{count} events", lambda: len(self.events) >= count, limit)
        except AssertionError as error:
            raise AssertionError(f"{error}: there are {len(self.events)}") from None
        return self.events


@contextlib.contextmanager
def redis_server():
    """A Redis that keeps all that it has answered, also when it is killed. Gives a `Redis`."""
    with tempfile.TemporaryDirectory() as directory, contextlib.ExitStack() as stack:
        yield Redis(stack, directory)


class Redis:
    def __init__(self, stack, directory):
        self.port, self.directory, self.process = free_port(), directory, None
        self.url = f"redis://127.0.0.1:{self.port}"
        self.start()
        stack.callback(self.kill)

    def start(self):
        """Starts the server, with what is on its disk."""
        self.process = subprocess.Popen(
            [gateway.REDIS, "--port", str(self.port), "--bind", "127.0.0.1", "--save", "",
             "--appendonly", "yes", "--appendfsync", "always", "--dir", self.directory], stdout=subprocess.DEVNULL)
        until("Redis answers", self._answers)

    def _answers(self):
        answer = subprocess.run(["redis-cli", "-p", str(self.port), "ping"], capture_output=True, text=True)
        return answer.stdout.strip() == "PONG"

    def kill(self):
        self.process.kill()
        self.process.wait()

    def events(self):
        """(id, data) of each message in the log, in order."""
        def ask(*command):
            answer = subprocess.run(["redis-cli", "-p", str(self.port), "--json", *command], check=True,
                                    capture_output=True, text=True)
            return json.loads(answer.stdout)
        (log,) = [key for key in ask("KEYS", "*") if ask("TYPE", key) == "stream"]
        entries = [(event_id, dict(zip(fields[::2], fields[1::2])))
                   for event_id, fields in ask("XRANGE", log, "-", "+")]
        return [(event_id, fields["data"].encode()) for event_id, fields in entries if "data" in fields]

    def stop(self):
        """Stops the process, which keeps its connections."""
        self.process.send_signal(signal.SIGSTOP)

    def resume(self):
        self.process.send_signal(signal.SIGCONT)
