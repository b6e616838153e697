"""Clients of WebSockets for the tests of deploy/: over HTTP/1.1, and over HTTP/2 (RFC 8441) by Node."""

import json
import shutil
import socket
import ssl
import subprocess

from deploy_processes import PATIENCE, Process, not_checked

# The URL, then the path. Prints the data of each frame as it comes: server frames are not masked, and
# a record is shorter than 126 bytes or has two bytes of length.
OVER_HTTP2 = """
const [url, path] = process.argv.slice(1);
const session = require("node:http2").connect(url, { rejectUnauthorized: false });
session.on("remoteSettings", ({ enableConnectProtocol }) => {
  if (!enableConnectProtocol) throw new Error("the server takes no WebSockets over HTTP/2");
  const stream = session.request({ ":method": "CONNECT", ":protocol": "websocket", ":path": path,
    "sec-websocket-version": "13" }, { endStream: false });
  stream.on("response", (headers) => console.log(`status ${headers[":status"]}`));
  let held = Buffer.alloc(0);
  stream.on("data", (bytes) => {
    held = Buffer.concat([held, bytes]);
    while (held.length > 4) {
      const [from, size] = held[1] === 126 ? [4, held.readUInt16BE(2)] : [2, held[1]];
      if (held.length < from + size) break;
      if (held[0] === 0x81) console.log(held.subarray(from, from + size).toString());
      held = held.subarray(from + size);
    }
  });
});
"""


class WebSocket:
    """A handshake over HTTP/1.1, and the records that follow."""

    def __init__(self, test, port, path, client="127.0.0.1", tls=True):
        self.socket = socket.create_connection(("127.0.0.1", port), PATIENCE, (client, 0))
        if tls:
            context = ssl._create_unverified_context()
            self.socket = context.wrap_socket(self.socket, server_hostname="localhost")
        test.addCleanup(self.socket.close)
        head = [f"GET {path} HTTP/1.1", "Host: localhost", "Connection: Upgrade", "Upgrade: websocket",
                "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", "", ""]
        self.socket.sendall("\r\n".join(head).encode())
        self.file = self.socket.makefile("rb")
        test.addCleanup(self.file.close)
        lines = list(iter(lambda: self.file.readline().decode().strip().lower(), ""))
        test.assertIn(" 101 ", lines[0])
        test.assertIn("sec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo=", lines)

    def record(self):
        """The next record; pings are passed over."""
        while True:
            first, size = self.file.read(2)
            if size == 126:
                size = int.from_bytes(self.file.read(2))
            data = self.file.read(size)
            if first == 0x81:
                return json.loads(data)


class WebSocketOverHttp2(Process):
    """The same on a stream of a connection of HTTP/2."""

    def __init__(self, test, url, path):
        if not shutil.which("node"):
            not_checked("WebSockets over HTTP/2, since there is no node")
        super().__init__(test, ["node", "-e", OVER_HTTP2, url, path], stdout=subprocess.PIPE)
        test.assertEqual(self.child.stdout.readline().strip(), "status 200")

    def record(self):
        return json.loads(self.child.stdout.readline())
