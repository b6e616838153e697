"""The manifests' settings on this machine: they start a gateway, and it leaves as they say."""

import contextlib
import signal
import tempfile
import threading
import time
import unittest
import urllib.request

import gateway
import manifests
from pull_processes import CAN_PULL, NO_PULL, PubSub
from quantities import seconds


def environment(docs, **changes):
    """What the pod would have in its environment, but for what cannot be had here."""
    data = manifests.one(docs, "ConfigMap")["data"]
    return data | {f"STREAM_EVENTS_{name}": text for name, text in changes.items()}


def read_lines(url, into):
    """Follows a stream in the background."""
    def follow():
        with urllib.request.urlopen(url, timeout=120) as answer:
            for line in answer:
                into.append(line.decode().rstrip("\n"))
    thread = threading.Thread(target=follow, daemon=True)
    thread.start()
    return thread


@unittest.skipUnless(manifests.TOOL, manifests.NO_TOOL)
@unittest.skipUnless(gateway.BINARY, gateway.NO_BINARY)
class Runs(unittest.TestCase):
    def test_the_base_starts_serves_and_leaves_within_its_grace_period(self):
        docs = manifests.variant("base")
        spec = manifests.pod(docs)
        container = spec["containers"][0]
        with gateway.issuer() as keys, gateway.gateway(
                container["args"], environment(docs, PUSH_JWKS_URL=keys)) as (process, url, ops):
            for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
                path = container[probe]["httpGet"]["path"]
                gateway.until(lambda path=path: gateway.status(ops + path) == 200)
            self.assertEqual(gateway.status(f"{url}/push/orders", data=b"{}"), 401)
            self.assertEqual(gateway.status(f"{url}/metrics"), 404)
            self.assertEqual(gateway.status(f"{ops}/metrics"), 200)

            lines = []
            reader = read_lines(f"{url}/events", lines)
            gateway.until(lambda: "event: stream-open" in lines)
            self.leave(docs, process, url, lines)
            reader.join(gateway.PATIENCE)
            self.assertIn("event: stream-end", lines)

    def test_what_is_reached_from_outside_starts_only_with_an_issuer_and_asks_for_tokens(self):
        for name in manifests.PUBLIC:
            docs = manifests.variant(name)
            args = manifests.pod(docs)["containers"][0]["args"]
            with self.subTest(overlay=name):
                code, said = gateway.refusal(args, environment(docs))
                self.assertEqual(code, 64, said)
                self.assertIn('--read-jwks-url: "EDIT"', said)
        # The last of them, edited.
        with gateway.issuer() as keys, gateway.gateway(
                args, environment(docs, PUSH_JWKS_URL=keys, READ_JWKS_URL=keys)) as (_, url, ops):
            gateway.until(lambda: gateway.status(f"{ops}/readyz") == 200)
            self.assertEqual(gateway.status(f"{url}/events"), 401)
            self.assertEqual(gateway.status(f"{url}/push/orders", data=b"{}"), 401)

    def test_the_overlay_to_try_shows_what_is_published(self):
        docs = manifests.variant("try")
        args = manifests.pod(docs)["containers"][0]["args"]
        with gateway.gateway(args, environment(docs)) as (_, url, ops):
            gateway.until(lambda: gateway.status(f"{ops}/readyz") == 200)
            lines = []
            read_lines(f"{url}/events", lines)
            gateway.until(lambda: "event: stream-open" in lines)
            gateway.publish(url, "orders", "hello")
            gateway.until(lambda: "data: hello" in lines)

    @unittest.skipUnless(CAN_PULL, NO_PULL)
    def test_the_component_pull_starts_a_gateway_that_pulls(self):
        docs = manifests.variant("base+pull")
        args = manifests.pod(docs)["containers"][0]["args"]
        name, topic = manifests.settings(docs)["STREAM_EVENTS_PULL"].split("=")
        with contextlib.ExitStack() as stack:
            pubsub = PubSub(stack)
            pubsub.call("create", name)
            settings = environment(docs, PULL_ENDPOINT=f"http://{pubsub.address}")
            _, url, ops = stack.enter_context(gateway.gateway(args, settings))
            gateway.until(lambda: gateway.status(f"{ops}/readyz") == 200)
            self.assertEqual(gateway.status(f"{url}/push/{topic}", data=b"{}"), 404)
            lines = []
            read_lines(f"{url}/events?topic={topic}", lines)
            gateway.until(lambda: "event: stream-open" in lines)
            pubsub.call("publish", name, messages=[{"text": "pulled"}])
            gateway.until(lambda: "data: pulled" in lines)

    def leave(self, docs, process, url, lines):
        """As the kubelet makes it leave: SIGTERM, and SIGKILL after the grace period."""
        settings = manifests.settings(docs)
        delay = seconds(settings["STREAM_EVENTS_DRAIN_DELAY"])
        start = time.monotonic()
        process.send_signal(signal.SIGTERM)
        gateway.until(lambda: gateway.status(f"{url}/readyz") == 503)
        # The load balancer may still send readers: they are served, and no stream ends.
        late = []
        read_lines(f"{url}/events", late)
        gateway.until(lambda: "event: stream-open" in late)
        gateway.until(lambda: "event: stream-end" in lines + late)
        self.assertGreater(time.monotonic() - start, delay)
        grace = manifests.pod(docs)["terminationGracePeriodSeconds"]
        self.assertEqual(process.wait(grace - (time.monotonic() - start)), 0)

    @unittest.skipUnless(gateway.REDIS, gateway.NO_REDIS)
    def test_replicas_share_the_log_of_the_overlay_redis(self):
        docs = manifests.variant("redis")
        server = manifests.one(docs, "StatefulSet", "stream-events-redis")["spec"]["template"]
        script = server["spec"]["containers"][0]["args"][0]
        conf = manifests.one(docs, "ConfigMap", "stream-events-redis")["data"]["redis.conf"]
        args = manifests.pod(docs)["containers"][0]["args"]
        with tempfile.TemporaryDirectory() as directory, \
                gateway.redis_server(script, conf, directory) as (redis, port):
            # Without Google's tokens, which only Google can make.
            settings = environment(docs, BACKPLANE=f"redis://127.0.0.1:{port}", PUSH_AUTH="none",
                                   REDIS_PASSWORD_FILE=f"{directory}/redis-password")
            for name in ("PUSH_AUDIENCE", "PUSH_SERVICE_ACCOUNT"):
                del settings[f"STREAM_EVENTS_{name}"]
            with gateway.gateway(args, settings) as (_, one, one_ops), \
                    gateway.gateway(args, settings) as (_, other, other_ops):
                for ops in (one_ops, other_ops):
                    gateway.until(lambda ops=ops: gateway.status(f"{ops}/readyz") == 200)
                lines = []
                read_lines(f"{other}/events", lines)
                gateway.until(lambda: "event: stream-open" in lines)
                push = gateway.status(f"{one}/push/orders?payload=raw", data=b"shared")
                self.assertEqual(push, 204)
                gateway.until(lambda: "data: shared" in lines)
            # The script gives its process to the server, which gets the kubelet's SIGTERM.
            redis.send_signal(signal.SIGTERM)
            self.assertEqual(redis.wait(gateway.PATIENCE), 0)


if __name__ == "__main__":
    unittest.main()
