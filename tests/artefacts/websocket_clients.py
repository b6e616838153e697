"""WebSocket clients that others wrote, each with the same few methods.

`receive` gives a record as a dict, `Pong` or `Closed`.
"""

import asyncio
import collections
import json
import os
import pathlib
import pty
import re
import shutil
import subprocess
import tty

import aiohttp
import websockets

from manifests import ROOT

HERE = pathlib.Path(__file__).parent
# scripts/check-artefacts installs the packages there, from package-lock.json.
NPM = ROOT / "target/check-artefacts/npm/node_modules"
HAS_NPM = shutil.which("node") and (NPM / "wscat").exists()
NO_NPM = "that npm's WebSocket clients can read, since they could not be installed (node, npm, network)"

Pong = collections.namedtuple("Pong", "data")
Closed = collections.namedtuple("Closed", "code")


class Websockets:
    """`websockets` of PyPI. It offers compression, and answers pings."""

    async def open(self, url):
        self.socket = await websockets.connect(url, ping_interval=None, max_size=None)

    async def receive(self):
        try:
            return json.loads(await self.socket.recv())
        except websockets.ConnectionClosed:
            return Closed(self.socket.close_code)

    async def send(self, text):
        await self.socket.send(text)

    async def ping(self, data):
        await (await self.socket.ping(data))

    async def cut(self):
        self.socket.transport.abort()

    async def close(self, code):
        await self.socket.close(code)
        return self.socket.close_code


class Aiohttp:
    """`aiohttp` of PyPI. It offers compression, answers pings, and pings by itself (heartbeat)."""

    async def open(self, url):
        self.session = aiohttp.ClientSession()
        self.socket = await self.session.ws_connect(url, heartbeat=0.4, compress=15, max_msg_size=0)

    async def receive(self):
        message = await self.socket.receive()
        if message.type is aiohttp.WSMsgType.TEXT:
            return json.loads(message.data)
        await self.session.close()
        return Closed(self.socket.close_code)

    async def send(self, text):
        await self.socket.send_str(text)

    async def ping(self, data):
        # It closes when its pings get no pongs, and does not show pongs.
        await self.socket.ping(data)

    async def cut(self):
        self.socket._response.connection.transport.abort()
        await self.session.close()

    async def close(self, code):
        await self.socket.close(code=code)
        await self.session.close()
        return self.socket.close_code


class Process:
    """A client that is a process: what it prints is parsed by `parse`."""

    async def start(self, command, **options):
        self.process = await asyncio.create_subprocess_exec(
            *command, env=os.environ | {"COLUMNS": "10000"}, **options)

    async def cut(self):
        self.process.kill()
        await self.process.wait()


class Ws(Process):
    """`ws` of npm, driven by lines of JSON."""

    async def open(self, url):
        await self.start(["node", HERE / "websocket_client.cjs", NPM / "ws", url], limit=1 << 24,
                         stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    async def receive(self):
        line = json.loads(await self.process.stdout.readline())
        if "pong" in line:
            return Pong(line["pong"].encode())
        if "closed" in line:
            await self.process.wait()
            return Closed(line["closed"])
        return json.loads(line["text"])

    async def ask(self, **what):
        self.process.stdin.write(json.dumps(what).encode() + b"\n")
        await self.process.stdin.drain()

    async def send(self, text):
        await self.ask(send=text)

    async def ping(self, data):
        await self.ask(ping=data.decode())
        assert await self.receive() == Pong(data)

    async def close(self, code):
        await self.ask(close=code)
        return (await self.receive()).code


class Wscat(Process):
    """`wscat` of npm, at a terminal: without one it does not tell the close code."""

    SAID = re.compile(rb'< (\{.*?\})\x1b\[39m|< Received pong \(data: "(.*?)"\)'
                      rb"|Disconnected \(code: (\d+)")

    async def open(self, url):
        self.terminal, inner = pty.openpty()
        tty.setraw(inner)
        await self.start(["node", NPM / "wscat/bin/wscat", "--no-color", "--slash", "--show-ping-pong",
                          "--connect", url], stdin=inner, stdout=inner, stderr=inner)
        os.close(inner)
        self.reader = asyncio.StreamReader(limit=1 << 24)
        await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(self.reader), os.fdopen(self.terminal, "r+b", buffering=0))
        self.seen = b""
        while b"Connected" not in self.seen:
            self.seen += await self.reader.read(65536)

    async def receive(self):
        while not (said := self.SAID.search(self.seen)):
            self.seen += await self.reader.read(65536)
        self.seen = self.seen[said.end():]
        record, pong, code = said.groups()
        if record:
            return json.loads(record)
        if code:
            await self.process.wait()
            return Closed(int(code))
        return Pong(pong)

    async def send(self, text):
        os.write(self.terminal, text.encode() + b"\r")

    async def ping(self, data):
        await self.send(f"/ping {data.decode()}")
        assert await self.receive() == Pong(data)

    async def close(self, code):
        await self.send(f"/close {code}")
        return (await self.receive()).code


CLIENTS = {"websockets": Websockets, "aiohttp": Aiohttp} | ({"ws": Ws, "wscat": Wscat} if HAS_NPM else {})
