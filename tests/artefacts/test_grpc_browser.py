"""A page in Chromium calls the gateway with `@connectrpc/connect-web`, over gRPC-Web."""

import functools
import http.server
import json
import queue
import shutil
import subprocess
import tempfile
import threading
import unittest
import urllib.parse

import gateway
from grpc_clients import HERE, NPM
from manifests import ROOT
from test_websocket_clients import push

CHROMIUM = shutil.which("chromium")
HAS_ALL = CHROMIUM and (NPM / "@connectrpc/connect-web").exists()
NOT_ALL = "that a browser can call over gRPC-Web, since something is not installed (chromium, npm)"
FILES = {"/": HERE / "grpc_page.html", "/descriptors.bin": ROOT / "src/outlet/grpc/generated/descriptors.bin"}


class Pages(http.server.SimpleHTTPRequestHandler):
    """Serves the page and the packages of npm, and receives what the page reports."""

    def __init__(self, reports, *arguments):
        self.reports = reports
        super().__init__(*arguments)

    def translate_path(self, path):
        path = urllib.parse.urlsplit(path).path
        return str(FILES.get(path) or NPM / path.removeprefix("/npm/"))

    def do_POST(self):
        self.reports.put(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_):
        pass


@unittest.skipUnless(gateway.BINARY, gateway.NO_BINARY)
@unittest.skipUnless(HAS_ALL, NOT_ALL)
class Browser(unittest.TestCase):
    def setUp(self):
        self.reports = queue.Queue()
        pages = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Pages, self.reports))
        threading.Thread(target=pages.serve_forever, daemon=True).start()
        self.addCleanup(pages.server_close)
        self.addCleanup(pages.shutdown)
        self.page = f"http://localhost:{pages.server_port}/"

    def browse(self, url):
        folder = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        self.addCleanup(folder.cleanup)
        arguments = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run",
                     f"--user-data-dir={folder.name}", url]
        browser = subprocess.Popen([CHROMIUM, *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.addCleanup(browser.wait)
        self.addCleanup(browser.terminate)

    def reported(self):
        return self.reports.get(timeout=gateway.PATIENCE)

    def test_a_page_reads_resumes_and_publishes(self):
        settings = {"STREAM_EVENTS_LOG_FORMAT": "json", "STREAM_EVENTS_KEEP_ALIVE": "1s"}
        with gateway.gateway(["dev"], settings) as (_, url, _):
            self.browse(f"{self.page}?gateway={url}")
            self.assertEqual(self.reported(), {"open": False})
            for text in ("grüße", "x" * 100_000, "the last"):
                # Each is read before the next is pushed: one that is held back would wait for ever.
                push(url, "orders", text)
                self.assertEqual(self.reported()["data"], text)
            published = self.reported()["published"]
            self.assertEqual(self.reported(), {"open": True})
            self.assertEqual(self.reported(), {"id": published, "data": "é last"})
            refused = self.reported()
            self.assertEqual(refused["code"], "InvalidArgument", refused)
            self.assertIn("filter", refused["text"])


if __name__ == "__main__":
    unittest.main()
