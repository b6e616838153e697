"""deploy/local/run: Pub/Sub's emulator, Redis, two gateways and nginx, for real."""

import base64
import json
import os
import shutil
import signal
import subprocess
import unittest
import urllib.request

from deploy_processes import (
    PATIENCE, PROJECT, Process, Reader, binary, google_sdks, listens, not_checked, request, until,
)
from deploy_websockets import WebSocket
from ports import free_ports

JARS = "platform/pubsub-emulator/lib/*-all.jar"


class Stack(Process):
    def __init__(self, test):
        if not any(list(sdk.glob(JARS)) for sdk in google_sdks()):
            not_checked("deploy/local/run, since the Pub/Sub emulator is not installed")
        for tool in ["java", "redis-server", "/usr/sbin/nginx", "setpriv"]:
            if not shutil.which(tool):
                not_checked(f"deploy/local/run, since there is no {tool}")
        self.base = free_ports(5)
        environment = os.environ | {
            "BASE_PORT": str(self.base),
            "STREAM_EVENTS_BINARY": str(binary()),
        }
        options = {"stdout": subprocess.PIPE, "env": environment}
        # A shell ignores SIGINT in a test that it runs in the background, and so would the script.
        command = ["env", "--default-signal=INT", PROJECT / "deploy/local/run"]
        super().__init__(test, command, **options)
        said = iter(self.child.stdout.readline, "")
        if not any("Ctrl-C ends all of it." in line for line in said):
            raise AssertionError("the stack did not start")

    def publish(self, text):
        data = base64.b64encode(text.encode()).decode()
        body = json.dumps({"messages": [{"data": data}]})
        path = "/v1/projects/local/topics/orders:publish"
        headers = {"Content-Type": "application/json"}
        status, answer = request(self.base + 4, "POST", path, body, headers)
        assert status == 200, answer


class Local(unittest.TestCase):
    def test_what_is_published_is_read_through_nginx_and_from_both_gateways(self):
        stack = Stack(self)
        # nginx gives them to its gateways in turn; the last two are each gateway by itself.
        ports = [stack.base, stack.base, stack.base + 1, stack.base + 2]
        readers = [Reader(self, f"http://127.0.0.1:{port}/events?topic=orders") for port in ports]
        for reader in readers:
            reader.until("event: stream-open")
            reader.until("data:")
        for number in range(4):
            # Each is read by all before the next is published: none waits in a buffer.
            stack.publish(f"event {number}")
            for reader in readers:
                self.assertEqual(reader.data(), f"event {number}")
        # More than nginx keeps of a body in memory.
        stack.publish("x" * 1_000_000)
        for reader in readers:
            self.assertEqual(len(reader.data()), 1_000_000)

    def test_the_chat_is_served_and_its_websockets_pass_nginx(self):
        stack = Stack(self)
        for path, kind in (("/chat/", "text/html"), ("/chat/room.js", "text/javascript"),
                           ("/chat/chat.css", "text/css")):
            with urllib.request.urlopen(f"http://127.0.0.1:{stack.base}{path}", timeout=PATIENCE) as answer:
                self.assertEqual(answer.headers.get_content_type(), kind, path)
        websocket = WebSocket(self, stack.base, "/ws?topic=orders", tls=False)
        self.assertEqual(websocket.record()["type"], "open")
        stack.publish("hello")
        self.assertEqual(websocket.record()["data"], "hello")

    def test_ctrl_c_and_a_kill_end_all_of_it(self):
        for number in (signal.SIGINT, signal.SIGKILL):
            stack = Stack(self)
            ports = range(stack.base, stack.base + 5)
            self.assertEqual([port for port in ports if not listens(port)], [])
            stack.child.send_signal(number)
            stack.child.wait(PATIENCE)
            until("all are gone", lambda ports=ports: not any(map(listens, ports)))


if __name__ == "__main__":
    unittest.main()
