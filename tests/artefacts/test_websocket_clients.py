"""WebSocket clients that others wrote read from the gateway: events, resuming, commands, pings, closes."""

import asyncio
import base64
import json
import unittest
import urllib.request

import gateway
from websocket_clients import CLIENTS, HAS_NPM, NO_NPM, Closed

SETTINGS = {"STREAM_EVENTS_LOG_FORMAT": "json", "STREAM_EVENTS_KEEP_ALIVE": "1s"}
# Seconds that a client may take for all.
TIME_MAX = 60
# Seconds of silence. Without answers to three pings, which come each second, the gateway closes (4408).
SILENCE = 4


def push(url, topic, data):
    """Publishes a message: an own process for each would be slow."""
    message = {"message": {"data": base64.b64encode(data.encode()).decode()}}
    request = urllib.request.Request(f"{url}/push/{topic}", data=json.dumps(message).encode())
    with urllib.request.urlopen(request, timeout=10) as answer:
        assert answer.status == 204, answer.status


def streams(ops):
    with urllib.request.urlopen(f"{ops}/metrics", timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith("stream_events_streams "))


class Scenario:
    """What each client does, with topics of its own."""

    def __init__(self, test, make, name, url):
        self.test, self.make, self.url = test, make, url
        self.socket_url = url.replace("http:", "ws:") + "/ws"
        self.orders, self.chats = f"orders-{name}", f"chats-{name}"

    async def publish(self, topic, *data):
        for text in data:
            await asyncio.to_thread(push, self.url, topic, text)

    async def opened(self, query):
        client = self.make()
        await client.open(self.socket_url + query)
        return client

    async def expect(self, client, **members):
        record = await client.receive()
        # They come in silence.
        while isinstance(record, dict) and record["type"] == "checkpoint":
            record = await client.receive()
        self.test.assertIsInstance(record, dict)
        self.test.assertEqual({name: record.get(name) for name in members}, members)
        return record

    async def reads_and_resumes(self):
        client = await self.opened(f"?topic={self.orders}")
        await self.expect(client, type="open", topics=[self.orders], resumed=False)
        await self.publish(self.orders, '{"text":"é 😀"}')
        event = await self.expect(client, type="event", topic=self.orders, data={"text": "é 😀"})
        await client.cut()
        large = "x" * 200_000
        await self.publish(self.orders, "1", large, "3")
        client = await self.opened(f"?topic={self.orders}&last_event_id={event['id']}")
        await self.expect(client, type="open", resumed=True, id=event["id"])
        for data in (1, large, 3):
            await self.expect(client, type="event", data=data)
        return client

    async def follows_commands(self, client):
        await client.send(json.dumps({"type": "subscribe", "ref": 1, "sub": "a", "topics": [self.chats]}))
        await self.expect(client, type="ok", ref=1)
        await self.expect(client, type="open", sub="a", topics=[self.chats])
        await self.publish(self.chats, '"hi"')
        await self.expect(client, type="event", sub="a", topic=self.chats, data="hi")
        await client.send(json.dumps({"type": "unsubscribe", "ref": "2", "sub": "a"}))
        await self.expect(client, type="ok", ref="2")
        await self.publish(self.chats, '"not for this client"')
        await self.publish(self.orders, '"for this client"')
        await self.expect(client, type="event", sub=None, data="for this client")

    async def run(self):
        client = await self.reads_and_resumes()
        await self.follows_commands(client)
        await client.ping(b"from-the-client")
        await asyncio.sleep(SILENCE)
        await self.publish(self.orders, '"after the silence"')
        await self.expect(client, type="event", data="after the silence")
        self.test.assertEqual(await client.close(1000), 1000)
        refused = await self.opened("?topic=orders&filter=no")
        await self.expect(refused, type="end", reason="bad-request")
        self.test.assertEqual(await refused.receive(), Closed(4400))


@unittest.skipUnless(gateway.BINARY, gateway.NO_BINARY)
class Clients(unittest.TestCase):
    def test_clients_read_resume_command_and_close(self):
        with gateway.gateway(["dev"], SETTINGS) as (_, url, ops):
            results = asyncio.run(self.run_all(url))
            for name, result in results.items():
                with self.subTest(name):
                    if result:
                        raise result
            # The streams of the connections that were cut have ended too.
            if not any(results.values()):
                gateway.until(lambda: streams(ops) == 0)

    async def run_all(self, url):
        async def one(name):
            async with asyncio.timeout(TIME_MAX):
                await Scenario(self, CLIENTS[name], name, url).run()
        done = await asyncio.gather(*map(one, CLIENTS), return_exceptions=True)
        return dict(zip(CLIENTS, done))

    @unittest.skipUnless(HAS_NPM, NO_NPM)
    def test_clients_of_npm_are_among_them(self):
        self.assertEqual(set(CLIENTS), {"websockets", "aiohttp", "ws", "wscat"})


if __name__ == "__main__":
    unittest.main()
