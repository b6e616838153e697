"""Real processes for the tests of deploy/: the gateway, and a reader. None outlives its test."""

import base64
import http.client
import json
import os
import queue
import socket
import subprocess
import threading
import time
import unittest
from pathlib import Path

from ports import free_port

PROJECT = Path(__file__).resolve().parents[2]
# Seconds. A machine with other work than this takes long to start what takes a second elsewhere.
PATIENCE = 60


def not_checked(why):
    """What cannot be had here counts neither as passed nor as failed, and is named at the end."""
    raise unittest.SkipTest(why)


def binary():
    """The gateway that was built last."""
    named = os.environ.get("STREAM_EVENTS_BINARY")
    profiles = ("debug", "release", "dist")
    built = [PROJECT / "target" / profile / "stream-events" for profile in profiles]
    found = [Path(named)] if named else [path for path in built if path.exists()]
    if not found:
        not_checked("a running gateway, since none was built (cargo build)")
    return max(found, key=lambda path: path.stat().st_mtime)


def google_sdks():
    """Where the gcloud CLI may have been installed."""
    folders = ["/usr/lib/google-cloud-sdk", "/opt/google-cloud-sdk"]
    folders += [os.environ.get("CLOUDSDK_ROOT_DIR", ""), str(Path.home() / "google-cloud-sdk")]
    return [Path(folder) for folder in folders if folder and Path(folder).is_dir()]


def until(what, condition):
    end = time.monotonic() + PATIENCE
    while not (found := condition()):
        if time.monotonic() > end:
            raise AssertionError(f"not within {PATIENCE} s: {what}")
        time.sleep(0.05)
    return found


def answers(port, path="/readyz"):
    try:
        return request(port, "GET", path)[0] == 200
    except OSError:
        return False


def listens(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def request(port, method, path, body=None, headers=None):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    try:
        connection.request(method, path, body, headers or {})
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


class Process:
    """A process that ends with the test."""

    def __init__(self, test, command, **options):
        # An end of its own for signals: what it starts goes with it.
        options.setdefault("stdout", subprocess.DEVNULL)
        self.child = subprocess.Popen(command, start_new_session=True, text=True, **options)
        test.addCleanup(self.end)

    def end(self):
        if self.child.poll() is None:
            os.killpg(self.child.pid, 9)
        self.child.wait()
        for pipe in (self.child.stdout, self.child.stderr):
            if pipe:
                pipe.close()


class Gateway(Process):
    """`serve` on ports of its own, open to all."""

    def __init__(self, test, **settings):
        self.port, self.ops = free_port(), free_port()
        environment = {
            name: text for name, text in os.environ.items() if not name.startswith("STREAM_EVENTS_")
        }
        own = {
            "LISTEN": f"127.0.0.1:{self.port}",
            "OPS_LISTEN": f"127.0.0.1:{self.ops}",
            "PUSH_AUTH": "none",
            "READ_AUTH": "anonymous",
            "LOG_LEVEL": "warn",
            "DRAIN_TIMEOUT": "1 s",
        } | settings
        environment |= {f"STREAM_EVENTS_{name}": text for name, text in own.items()}
        super().__init__(test, [binary(), "serve"], env=environment, stderr=subprocess.DEVNULL)
        # On the ops listener, which never asks for a PROXY header.
        until("the gateway is ready", lambda: answers(self.ops) and listens(self.port))

    def metric(self, name):
        """One of its figures, by its name with labels."""
        for line in request(self.ops, "GET", "/metrics")[1].splitlines():
            if line.startswith(f"{name} "):
                return float(line.split()[1])
        return None


class Reader(Process):
    """curl, which is not ours, and the lines that it gets with the time of each."""

    def __init__(self, test, url, *options):
        command = ["curl", "-sN", "--insecure", *options, url]
        super().__init__(test, command, stdout=subprocess.PIPE)
        self.lines = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self):
        for line in self.child.stdout:
            self.lines.put((time.monotonic(), line.rstrip("\n")))
        self.lines.put((time.monotonic(), None))

    def until(self, *beginnings, patience=PATIENCE):
        """The next line that begins so, and when it came. None when the stream ends."""
        end = time.monotonic() + patience
        while True:
            try:
                at, line = self.lines.get(timeout=max(0.0, end - time.monotonic()))
            except queue.Empty:
                raise AssertionError(f"no line with {beginnings} within {patience} s") from None
            if line is None or line.startswith(beginnings):
                return at, line

    def data(self):
        return self.until("data:")[1].removeprefix("data:").strip()


def push(port, topic, text, number):
    """As Pub/Sub would; the message's id."""
    message = {"data": base64.b64encode(text.encode()).decode(), "messageId": str(number)}
    body = json.dumps({"message": message, "subscription": "projects/p/subscriptions/s"})
    return request(port, "POST", f"/push/{topic}", body, {"Content-Type": "application/json"})[0]
