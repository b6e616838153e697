"""examples/client, compiled and in Chromium: it reopens, resumes, tells gaps, renews, and goes over to a
WebSocket where server-sent events are held back."""

import contextlib
import functools
import http.server
import json
import queue
import secrets
import shutil
import socket
import subprocess
import tempfile
import threading
import time
import unittest
import urllib.parse

import gateway
from api_tokens import reader_token
from manifests import ROOT
from test_websocket_clients import push

NPM = ROOT / "target/check-artefacts/npm/node_modules"
HERE = ROOT / "tests/artefacts"
CHROMIUM = shutil.which("chromium")
HAS_ALL = CHROMIUM and (NPM / "esbuild").exists() and (NPM / "typescript").exists()
NOT_ALL = "the client for browsers, since something is not installed (chromium, npm)"


def compiled():
    """The page's program, in one file."""
    bundle = [NPM / ".bin/esbuild", HERE / "client_page.tsx", "--bundle", "--format=esm", "--target=es2022"]
    with_packages = {"NODE_PATH": str(NPM), "PATH": "/usr/bin:/bin:/usr/local/bin"}
    return subprocess.run(bundle, env=with_packages, capture_output=True, check=True).stdout


class Pages(http.server.BaseHTTPRequestHandler):
    """Serves the page, its program and tokens, and receives what the page reports."""

    def __init__(self, test, *arguments):
        self.test = test
        super().__init__(*arguments)

    def do_GET(self):
        path = urllib.parse.urlsplit(self.path).path
        if path == "/token":
            self.test.token_lasts += 15  # A token renews the stream if it lasts longer than the one before.
        kind, body = {
            "/page.js": ("text/javascript", self.test.program),
            "/token": ("text/plain", reader_token(self.test.secret, self.test.token_lasts).encode()),
        }.get(path, ("text/html", b'<!doctype html><body><script type="module" src="/page.js"></script>'))
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self):
        self.test.reports.put(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_):
        pass


class Proxy:
    """Passes connections on to a gateway. `refuses`: answers 502 to paths that begin with this text.
    `holds_back`: answers nothing to GET /events, as a proxy that buffers."""

    def __init__(self, test, target):
        self.target, self.refuses, self.holds_back = target, None, False
        self.open = []
        self.listener = socket.create_server(("127.0.0.1", 0))
        test.addCleanup(self.listener.close)
        test.addCleanup(self.cut)
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=self.serve, args=[self.listener.accept()[0]], daemon=True).start()

    def serve(self, client):
        self.open.append(client)
        with contextlib.suppress(OSError):
            head = client.recv(65536)
            if self.refuses and head.startswith(b"GET " + self.refuses):
                client.sendall(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
                client.close()
            elif not (self.holds_back and head.startswith(b"GET /events")):
                address = urllib.parse.urlsplit(self.target)
                server = socket.create_connection((address.hostname, address.port))
                self.open.append(server)
                server.sendall(head)
                threading.Thread(target=self.pump, args=[client, server], daemon=True).start()
                self.pump(server, client)

    @staticmethod
    def pump(source, sink):
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                sink.sendall(data)
            sink.shutdown(socket.SHUT_RDWR)

    def cut(self):
        for each in self.open:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        self.open.clear()


@unittest.skipUnless(gateway.BINARY, gateway.NO_BINARY)
@unittest.skipUnless(HAS_ALL, NOT_ALL)
class Client(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.program = compiled()

    def setUp(self):
        self.reports, self.secret, self.token_lasts = queue.Queue(), secrets.token_hex(32).encode(), 3600
        pages = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Pages, self))
        threading.Thread(target=pages.serve_forever, daemon=True).start()
        self.addCleanup(pages.server_close)
        self.addCleanup(pages.shutdown)
        self.page = f"http://localhost:{pages.server_port}"

    def browse(self, url, options, *flags):
        query = {"gateway": url, "follow": json.dumps(options)} | dict.fromkeys(flags, "1")
        folder = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        self.addCleanup(folder.cleanup)
        arguments = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run",
                     f"--user-data-dir={folder.name}", f"{self.page}/?{urllib.parse.urlencode(query)}"]
        browser = subprocess.Popen([CHROMIUM, *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.addCleanup(browser.wait)
        self.addCleanup(browser.terminate)

    def until(self, wanted):
        """The reports up to one that has all these members."""
        return self.until_it(wanted, lambda report: wanted.items() <= report.items())

    def until_some(self, name):
        """The member of the next report that has it."""
        return self.until_it(name, lambda report: name in report)[-1][name]

    def until_it(self, wanted, fits):
        seen, end = [], time.monotonic() + gateway.PATIENCE
        while not (seen and fits(seen[-1])):
            try:
                seen.append(self.reports.get(timeout=max(0, end - time.monotonic())))
            except queue.Empty:
                raise AssertionError(f"no {wanted} in {seen}") from None
        return seen

    def serve(self, *arguments, **settings):
        all_settings = {"STREAM_EVENTS_LOG_FORMAT": "json"} | settings
        return self.enterContext(gateway.gateway(list(arguments), all_settings))

    def test_types_are_right(self):
        with tempfile.TemporaryDirectory(dir=ROOT / "target") as folder:
            shutil.copytree(ROOT / "examples/client", folder, dirs_exist_ok=True)
            (ROOT / folder / "node_modules").symlink_to(NPM)
            done = subprocess.run([NPM / ".bin/tsc", "-p", folder], stdin=subprocess.DEVNULL, capture_output=True,
                                  text=True, timeout=gateway.PATIENCE)
        self.assertEqual((done.returncode, done.stdout), (0, ""))

    def test_it_resumes_after_cuts_and_refusals(self):
        _, url, _ = self.serve("dev")
        proxy = Proxy(self, url)
        self.browse(proxy.url, {"topics": ["orders"], "types": ["created"]})
        self.until({"state": "open", "over": "sse"})
        push(url, "orders", '{"n":1}')
        self.assertEqual(self.until({"topic": "orders"})[-1]["data"], {"n": 1})
        # The browser's EventSource does not reconnect after a 502: the client has to.
        proxy.refuses = b"/"
        proxy.cut()
        self.until({"state": "waiting"})
        push(url, "orders", '{"n":2}')
        self.until({"state": "waiting"})
        proxy.refuses = None
        self.assertEqual(self.until({"topic": "orders"})[-1]["data"], {"n": 2})
        push(url, "orders", '{"n":3}')
        self.assertEqual(self.until({"topic": "orders"})[-1]["data"], {"n": 3})

    def test_it_tells_a_gap(self):
        _, url, _ = self.serve("dev")
        proxy = Proxy(self, url)
        self.browse(proxy.url, {"topics": ["orders"]})
        self.until({"state": "open"})
        push(url, "orders", "1")
        self.until({"data": 1})
        # Another gateway in its place, as after a restart, does not have the events of the first.
        proxy.target = self.serve("dev")[1]
        push(proxy.target, "orders", "2")
        proxy.cut()
        self.until({"gap": "restart"})
        self.until({"data": 2})

    def test_it_goes_over_to_a_websocket_and_resumes(self):
        _, url, _ = self.serve("dev")
        proxy = Proxy(self, url)
        self.browse(proxy.url, {"topics": ["orders"]})
        self.until({"state": "open", "over": "sse"})
        push(url, "orders", "1")
        self.until({"data": 1})
        proxy.holds_back = True
        proxy.cut()
        push(url, "orders", "2")
        self.until({"state": "open", "over": "websocket"})
        seen = self.until({"data": 2})
        self.assertEqual([each["data"] for each in seen if "topic" in each], [2])

    def test_it_goes_back_where_no_websocket_opens(self):
        _, url, _ = self.serve("dev")
        proxy = Proxy(self, url)
        proxy.holds_back, proxy.refuses = True, b"/ws"
        self.browse(proxy.url, {"topics": ["orders"]})
        # The stream was silent, and then the WebSocket was refused.
        self.until({"state": "waiting"})
        self.until({"state": "waiting"})
        proxy.holds_back = False
        self.until({"state": "open", "over": "sse"})

    def test_it_renews_with_a_token_that_is_in_no_url(self):
        key = self.enterContext(tempfile.NamedTemporaryFile())
        key.write(self.secret)
        key.flush()
        _, url, _ = self.serve(
            "serve", STREAM_EVENTS_PUSH_AUTH="none", STREAM_EVENTS_READ_AUTH="jwt",
            STREAM_EVENTS_READ_KEY_FILE=key.name, STREAM_EVENTS_CORS_ORIGIN=self.page)
        # The gateway asks for a new token a minute before the old one expires: here at once.
        self.token_lasts = 20
        self.browse(url, {"topics": ["orders"]}, "tokens")
        self.until({"state": "open"})
        renewed = self.until_some("renewed")
        self.assertTrue(35 < renewed <= self.token_lasts, renewed)
        push(url, "orders", "1")
        self.until({"data": 1})

    def test_the_hook_keeps_the_newest_events(self):
        _, url, _ = self.serve("dev")
        self.browse(url, {"topics": ["orders"]}, "react")
        self.until({"list": [], "state": "open"})
        for number in ("1", "2", "3"):
            push(url, "orders", number)
        self.until({"list": [2, 3]})


if __name__ == "__main__":
    unittest.main()
