"""gRPC clients that others wrote call the gateway: reflection, streams, resuming, statuses, health."""

import asyncio
import subprocess
import sys
import unittest
import urllib.request

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

import gateway
from grpc_clients import CLIENTS, GRPCURL, HAS_NPM, NO_GRPCURL, NO_NPM, SERVICE, Reflected, as_dict, data_of
from manifests import ROOT
from test_websocket_clients import push, streams

SETTINGS = {"STREAM_EVENTS_LOG_FORMAT": "json", "STREAM_EVENTS_KEEP_ALIVE": "1s"}
# Seconds that a client may take for all.
TIME_MAX = 60


class Scenario:
    """What each client does, with a topic of its own."""

    def __init__(self, test, make, name, url):
        self.test, self.make, self.url, self.topic = test, make, url, f"orders-{name}"
        self.target = url.removeprefix("http://")

    async def subscribed(self, **request):
        client = self.make()
        await client.subscribe(self.target, {"topics": [self.topic]} | request)
        return client

    async def next(self, client, kind):
        record = await client.record()
        # They come in silence.
        while kind not in record and {"keepAlive", "checkpoint"} & set(record):
            record = await client.record()
        self.test.assertIn(kind, record)
        return record

    async def publish(self, *data):
        for text in data:
            await asyncio.to_thread(push, self.url, self.topic, text)

    async def run(self):
        client = await self.subscribed()
        opened = await self.next(client, "open")
        self.test.assertEqual(opened["open"]["topics"], [self.topic])
        await self.publish('{"text":"é 😀"}')
        record = await self.next(client, "event")
        self.test.assertEqual(data_of(record).decode(), '{"text":"é 😀"}')
        await client.cancel()
        large = "x" * 200_000
        await self.publish("1", large, "3")
        client = await self.subscribed(lastEventId=record["event"]["id"])
        opened = await self.next(client, "open")
        self.test.assertTrue(opened["open"]["resumed"])
        for data in ("1", large, "3"):
            self.test.assertEqual(data_of(await self.next(client, "event")).decode(), data)
        await self.next(client, "keepAlive")
        await client.cancel()
        refused = await self.subscribed(filter="no")
        self.test.assertIn(await refused.code(), ("INVALID_ARGUMENT", "InvalidArgument"))
        await refused.cancel()


@unittest.skipUnless(gateway.BINARY, gateway.NO_BINARY)
class Clients(unittest.TestCase):
    def test_clients_read_and_resume(self):
        with gateway.gateway(["dev"], SETTINGS) as (_, url, ops):
            results = asyncio.run(self.run_all(url))
            for name, result in results.items():
                with self.subTest(name):
                    if result:
                        raise result
            # The streams of calls that were cancelled have ended.
            if not any(results.values()):
                gateway.until(lambda: streams(ops) == 0)

    async def run_all(self, url):
        async def one(name):
            async with asyncio.timeout(TIME_MAX):
                await Scenario(self, CLIENTS[name], name, url).run()
        done = await asyncio.gather(*map(one, CLIENTS), return_exceptions=True)
        return dict(zip(CLIENTS, done))

    def test_python_needs_reflection_only(self):
        with gateway.gateway(["dev"], SETTINGS) as (_, url, _):
            reflected = Reflected(url.removeprefix("http://"))
            stream = reflected.call("Subscribe", {"topics": ["orders"]}, timeout=TIME_MAX)
            self.assertIn("open", as_dict(next(stream)))
            published = reflected.call("Publish", {"topic": "orders", "data": "aGk="}, timeout=TIME_MAX)
            record = as_dict(next(stream))
            self.assertEqual((record["event"]["id"], data_of(record)), (published.id, b"hi"))
            stream.cancel()
            commands = [{"ref": "1", "subscribe": {"sub": "a", "request": {"topics": ["orders"], "rewind": 1}}}]
            function, command = reflected.method("Session")
            session = function(iter([command(**each) for each in commands]), timeout=TIME_MAX)
            records = [as_dict(next(session)) for _ in range(3)]
            self.assertEqual(records[0]["ok"]["ref"], "1")
            self.assertEqual([each["sub"] for each in records[1:]], ["a", "a"])
            session.cancel()
            with self.assertRaises(grpc.RpcError) as late:
                list(reflected.call("Subscribe", {"topics": ["orders"]}, timeout=0.3))
            self.assertEqual(late.exception.code(), grpc.StatusCode.DEADLINE_EXCEEDED)
            with self.assertRaises(grpc.RpcError) as packed:
                # The client does not compress what gets no smaller.
                reflected.call("Publish", {"topic": "orders", "data": "eHh4" * 500},
                               compression=grpc.Compression.Gzip)
            self.assertEqual(packed.exception.code(), grpc.StatusCode.UNIMPLEMENTED)
            health = health_pb2_grpc.HealthStub(reflected.channel)
            for name in ("", SERVICE):
                answer = health.Check(health_pb2.HealthCheckRequest(service=name))
                self.assertEqual(answer.status, health_pb2.HealthCheckResponse.SERVING)

    def test_the_example_resumes_by_itself(self):
        command = [sys.executable, ROOT / "examples/grpc/follow.py"]
        with gateway.gateway(["dev"], SETTINGS | {"STREAM_EVENTS_STREAM_AGE_MAX": "1s"}) as (_, url, ops):
            process = subprocess.Popen([*command, url.removeprefix("http://"), "orders", "--count", "4"],
                                       stdout=subprocess.PIPE, text=True)
            with process:
                for number in range(4):
                    # Each event is published to a stream that is open, of which none lasts for long.
                    gateway.until(lambda: streams(ops) == 1)
                    push(url, "orders", f"ü {number}")
                    line = process.stdout.readline().split("\t")
                    self.assertEqual(line[1:], ["message", f'"ü {number}"\n'])
                    gateway.until(lambda: streams(ops) == 0)
                self.assertEqual(process.wait(TIME_MAX), 0)
            refused = subprocess.run([*command, url.removeprefix("http://"), "a b"], capture_output=True,
                                     text=True, timeout=TIME_MAX)
            self.assertEqual(refused.returncode, 1)
            self.assertIn("INVALID_ARGUMENT: topic", refused.stderr)

    def test_the_example_resumes_after_it_was_too_slow(self):
        settings = SETTINGS | {"STREAM_EVENTS_WRITE_TIMEOUT": "1s"}
        count, text = 60, "x" * 300_000
        with gateway.gateway(["dev"], settings) as (_, url, ops):
            command = [sys.executable, ROOT / "examples/grpc/follow.py", url.removeprefix("http://"), "orders"]
            with subprocess.Popen([*command, "--count", str(count)], stdout=subprocess.PIPE, text=True) as process:
                gateway.until(lambda: streams(ops) == 1)
                for number in range(count):
                    push(url, "orders", f"{number} {text}")
                # It writes to a full pipe, and reads nothing.
                ended = b'streams_ended_total{reason="stalled"} '
                gateway.until(lambda: ended in urllib.request.urlopen(f"{ops}/metrics").read())
                numbers = [int(line.split("\t")[2].split()[0].strip('"')) for line in process.stdout]
                self.assertEqual(numbers, list(range(count)))
                self.assertEqual(process.wait(TIME_MAX), 0)

    @unittest.skipUnless(GRPCURL, NO_GRPCURL)
    def test_grpcurl_lists_and_describes(self):
        def grpcurl(*arguments):
            return subprocess.run([GRPCURL, "-plaintext", *arguments], capture_output=True, text=True,
                                  timeout=TIME_MAX, check=True).stdout
        with gateway.gateway(["dev"], SETTINGS) as (_, url, _):
            target = url.removeprefix("http://")
            self.assertIn(SERVICE, grpcurl(target, "list").splitlines())
            self.assertIn("Subscribe", grpcurl(target, "describe", SERVICE))
            self.assertIn("last_event_id", grpcurl(target, "describe", "stream_events.v1.SubscribeRequest"))
            self.assertIn("SERVING", grpcurl(target, "grpc.health.v1.Health/Check"))
            said = grpcurl("-d", '{"topic":"orders","data":"aGk="}', target, f"{SERVICE}/Publish")
            self.assertIn('"id"', said)

    @unittest.skipUnless(HAS_NPM, NO_NPM)
    def test_the_client_of_npm_is_among_them(self):
        self.assertIn("grpc-js", CLIENTS)


if __name__ == "__main__":
    unittest.main()
