"""A WebSocket over HTTP/2 (RFC 8441), with the frames of `h2` and `wsproto`, which others wrote."""

import json
import socket
import time
import unittest
import urllib.parse

import gateway
import h2.config
import h2.connection
import h2.events
import h2.settings
from test_websocket_clients import push, streams
from wsproto.connection import Connection, ConnectionType
from wsproto.events import CloseConnection, Ping, TextMessage

SETTINGS = {"STREAM_EVENTS_LOG_FORMAT": "json", "STREAM_EVENTS_KEEP_ALIVE": "1s"}


class Client:
    """One connection of HTTP/2, with WebSockets on its streams."""

    def __init__(self, url):
        self.authority = urllib.parse.urlsplit(url).netloc
        host, port = self.authority.split(":")
        self.socket = socket.create_connection((host, int(port)), timeout=gateway.PATIENCE)
        config = h2.config.H2Configuration(client_side=True, header_encoding="utf-8")
        self.http = h2.connection.H2Connection(config=config)
        self.http.initiate_connection()
        self.statuses, self.sockets, self.received, self.ended = {}, {}, {}, set()
        self.flush()
        # A client may use extended CONNECT only after the server's SETTINGS.
        while not self.http.remote_settings.enable_connect_protocol:
            self.read()

    def flush(self):
        self.socket.sendall(self.http.data_to_send())

    def read(self):
        data = self.socket.recv(65_536)
        assert data, "the gateway has closed the connection"
        for event in self.http.receive_data(data):
            if isinstance(event, h2.events.ResponseReceived):
                self.statuses[event.stream_id] = dict(event.headers)[":status"]
            elif isinstance(event, h2.events.DataReceived):
                self.http.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
                self.receive(event.stream_id, event.data)
            elif isinstance(event, h2.events.StreamEnded):
                self.ended.add(event.stream_id)
            # An answer that ends before its request resets it with NO_ERROR (RFC 9113, section 8.1).
            assert not getattr(event, "error_code", 0), event
        self.flush()

    def receive(self, stream, data):
        if not data:  # The end of the stream.
            return
        self.sockets[stream].receive_data(data)
        for event in self.sockets[stream].events():
            if isinstance(event, Ping):
                self.send(stream, event.response())
            self.received[stream].append(event)

    def connect(self, path, protocol="websocket"):
        """Opens a stream with an extended CONNECT. Returns it and the status of the answer."""
        stream = self.http.get_next_available_stream_id()
        self.http.send_headers(stream, [
            (":method", "CONNECT"), (":protocol", protocol), (":scheme", "http"),
            (":authority", self.authority), (":path", path), ("sec-websocket-version", "13"),
        ])
        self.sockets[stream] = Connection(ConnectionType.CLIENT)
        self.received[stream] = []
        self.flush()
        while stream not in self.statuses:
            self.read()
        return stream, self.statuses[stream]

    def send(self, stream, event):
        self.http.send_data(stream, self.sockets[stream].send(event))
        self.flush()

    def event(self, stream, kind):
        """Returns the next event of a kind, and passes over others."""
        while True:
            while self.received[stream]:
                event = self.received[stream].pop(0)
                if isinstance(event, kind):
                    return event
            self.read()

    def record(self, stream, kind):
        text = ""
        while True:
            event = self.event(stream, TextMessage)
            text += event.data
            if not event.message_finished:
                continue
            record, text = json.loads(text), ""
            if record["type"] == kind:
                return record


@unittest.skipUnless(gateway.BINARY, gateway.NO_BINARY)
class WebSocketsOverHttp2(unittest.TestCase):
    def test_two_sockets_on_one_connection(self):
        with gateway.gateway(["dev"], SETTINGS) as (_, url, ops):
            client = Client(url)
            self.assertEqual(client.connect("/events")[1], "404")
            self.assertEqual(client.connect("/ws", "connect-udp")[1], "501")
            orders, status = client.connect("/ws?topic=orders")
            self.assertEqual(status, "200")
            chats, status = client.connect("/ws?topic=chats")
            self.assertEqual(status, "200")
            self.assertEqual(client.record(orders, "open")["topics"], ["orders"])
            client.record(chats, "open")
            large = "é" * 100_000
            push(url, "orders", large)
            push(url, "chats", '{"text":"hi"}')
            event = client.record(orders, "event")
            self.assertEqual(event["data"], large)
            self.assertEqual(client.record(chats, "event")["data"], {"text": "hi"})
            command = {"type": "publish", "ref": 1, "topic": "chats", "data": "back"}
            client.send(orders, TextMessage(data=json.dumps(command)))
            self.assertEqual(len(client.record(orders, "ok")["ids"]), 1)
            self.assertEqual(client.record(chats, "event")["data"], "back")
            client.event(chats, Ping)
            # One closes, and the other goes on.
            client.send(orders, CloseConnection(code=4000, reason="done"))
            self.assertEqual(client.event(orders, CloseConnection).code, 4000)
            while orders not in client.ended:
                client.read()
            push(url, "chats", "still there")
            self.assertEqual(client.record(chats, "event")["data"], "still there")
            resumed, _ = client.connect(f"/ws?topic=orders&last_event_id={event['id']}")
            self.assertTrue(client.record(resumed, "open")["resumed"])
            client.socket.close()
            deadline = time.monotonic() + gateway.PATIENCE
            while streams(ops):
                self.assertLess(time.monotonic(), deadline, "the streams have not ended")
                time.sleep(0.1)


if __name__ == "__main__":
    unittest.main()
