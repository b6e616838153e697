"""Streams of gRPC clients that others wrote, cut 50 times and resumed, directly and through nginx
(`grpc_pass`), have the same events and ids as a stream of server-sent events that is never cut."""

import contextlib
import json
import random
import shutil
import subprocess
import tempfile
import threading
import unittest
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import gateway
from deploy_processes import listens
from grpc_clients import HAS_NPM, HERE, NO_NPM, NPM, Reflected, as_dict, data_of
from manifests import ROOT
from ports import free_port
from test_websocket_clients import push

SETTINGS = {"STREAM_EVENTS_LOG_FORMAT": "json", "STREAM_EVENTS_RING_EVENTS": "100000"}
TOPICS = ["orders", "chats"]
LAST = "the last"
# Cuts of calls of gRPC. A client that also reads server-sent events has half as many cuts of those.
CUTS = 50
NGINX = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")


@contextlib.contextmanager
def nginx(target):
    """An nginx that passes calls to a gateway; gives its address."""
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        conf = Path(folder) / "nginx.conf"
        paths = "".join(f"{each}_temp_path {folder}/{each};\n"
                        for each in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
        conf.write_text(f"""
            daemon off; pid {folder}/pid; error_log {folder}/error.log;
            events {{}}
            http {{
                access_log off; {paths}
                server {{
                    listen 127.0.0.1:{port} http2;
                    location / {{ grpc_pass grpc://{target}; grpc_set_header Host localhost; }}
                }}
            }}
        """)
        process = subprocess.Popen([NGINX, "-p", folder, "-e", f"{folder}/error.log", "-c", conf])
        try:
            gateway.until(lambda: listens(port))
            yield f"127.0.0.1:{port}"
        finally:
            process.terminate()
            process.wait()


def server_sent(url, last_id=None):
    """The id and the data of each block of a stream; the data is None if it is no event of a topic."""
    headers = {"Last-Event-ID": last_id} if last_id else {}
    request = urllib.request.Request(f"{url}/events?topic={','.join(TOPICS)}", headers=headers)
    with urllib.request.urlopen(request, timeout=gateway.PATIENCE) as answer:
        block = {}
        for line in answer:
            name, _, text = line.decode().removesuffix("\n").partition(": ")
            if name:
                block[name] = text
                continue
            assert block.get("event") != "stream-gap", block
            if "id" in block or "event" in block:
                yield block.get("id"), None if "event" in block else block.get("data")
            block = {}


class Calls:
    """Calls of `grpcio` to one target. Half of the cuts also end the connection."""

    def __init__(self, target):
        self.target, self.reflected = target, None

    def records(self, last_id):
        self.reflected = self.reflected or Reflected(self.target)
        call = self.reflected.call("Subscribe", {"topics": TOPICS, "lastEventId": last_id})
        try:
            for record in map(as_dict, call):
                assert "gap" not in record, record
                for kind in ("open", "checkpoint"):
                    if kind in record:
                        yield record[kind]["id"], None
                if "event" in record:
                    yield record["event"]["id"], data_of(record).decode()
        finally:
            call.cancel()
            if random.random() < 0.5:
                self.reflected.channel.close()
                self.reflected = None


def follow(ways, cuts, last_id, cut_done):
    """Reads by each way in turn, with so many cuts; gives the ids and the data of the events."""
    seen = []
    for cut in range(cuts + 1):
        records = ways[cut % len(ways)](last_id)
        left = random.randint(1, 20) if cut < cuts else None
        for count, (last_id, data) in enumerate(((i or last_id, d) for i, d in records), 1):
            if data is not None:
                seen.append((last_id, data))
            if count == left or data == LAST:
                break
        records.close()
        if cut + 1 == cuts:
            cut_done()
    return seen


def follow_js(targets, last_id, cut_done):
    """As `follow`, with `@grpc/grpc-js`."""
    command = ["node", HERE / "grpc_cuts.cjs", NPM, ROOT / "proto", ",".join(targets), str(CUTS), last_id, LAST]
    seen = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        for event in map(json.loads, process.stdout):
            if event is None:
                cut_done()
            else:
                seen.append(tuple(event))
    assert process.returncode == 0
    return seen


@unittest.skipUnless(gateway.BINARY, gateway.NO_BINARY)
@unittest.skipUnless(NGINX, "that streams of gRPC resume through nginx, since there is none")
class Cuts(unittest.TestCase):
    def check(self, follower):
        """Compares the events of a follower with those of a reader that is never cut."""
        seed = random.randrange(1 << 32)
        print(f"seed {seed}")
        random.seed(seed)
        done = threading.Event()
        with gateway.gateway(["dev"], SETTINGS) as (_, url, _), ThreadPoolExecutor() as pool:
            target = url.removeprefix("http://")
            with nginx(target) as proxied:
                reader = server_sent(url)
                first = next(reader)[0]

                def read():
                    events = []
                    while not events or events[-1][1] != LAST:
                        events.append(next(event for event in reader if event[1] is not None))
                    return events

                def write():
                    writer = random.Random(seed)
                    for number in range(100_000):
                        if done.is_set():
                            break
                        text = "é" * writer.choice([1, 100, 30_000])
                        push(url, writer.choice(TOPICS), f"event {number} {text}")
                    push(url, "chats", LAST)

                expected, written = pool.submit(read), pool.submit(write)
                try:
                    seen = follower(url, target, proxied, first, done.set)
                finally:
                    done.set()
                written.result()
                expected = expected.result()
        self.assertEqual([event[0] for event in seen], [event[0] for event in expected])
        self.assertEqual(seen, expected)

    def test_streams_of_grpcio_resume_across_nginx_and_server_sent_events(self):
        def follower(url, target, proxied, first, cut_done):
            ways = [Calls(target).records, lambda last_id: server_sent(url, last_id), Calls(proxied).records]
            return follow(ways, CUTS * 3 // 2, first, cut_done)
        self.check(follower)

    @unittest.skipUnless(HAS_NPM, NO_NPM)
    def test_streams_of_grpc_js_resume_across_nginx(self):
        self.check(lambda _, target, proxied, first, cut_done:
                   follow_js([target, proxied], first, cut_done))


if __name__ == "__main__":
    unittest.main()
