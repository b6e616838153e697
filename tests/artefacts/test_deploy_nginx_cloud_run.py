"""deploy/nginx/cloud-run.conf in a real nginx, before an nginx that does what Cloud Run's front does:
it knows a service by the name in TLS and by Host, and adds the address that it sees."""

import re
import shutil
import subprocess
import tempfile
import unittest
from pathlib import Path

import deploy_paths
from deploy_processes import PATIENCE, PROJECT, Gateway, Reader, listens, not_checked, push, until
from deploy_rules import l7_numbers
from deploy_websockets import WebSocket
from ports import free_port
from public_paths import PUSH_PATHS
from test_deploy_chain import NGINX, Nginx, edited, temporary
from test_deploy_envoy import certificate

CONF = (PROJECT / "deploy/nginx/cloud-run.conf").read_text()
NAMES = ["events-123456789.europe-west1.run.app", "events-ws-123456789.europe-west1.run.app"]

IN_CLOUD_RUNS_PLACE = """
pid pid;
error_log error.log info;
events {{}}
http {{
    access_log off;
    {temporary}
    map $http_upgrade $connection_header {{
        default "";
        websocket upgrade;
    }}
    ssl_certificate {folder}/tls.crt;
    ssl_certificate_key {folder}/tls.key;
    server {{
        listen 127.0.0.1:{port} ssl http2 default_server;
        ssl_reject_handshake on;
    }}
    server {{
        listen 127.0.0.1:{port} ssl http2;
        server_name {names};
        # A name in TLS that Host does not repeat.
        if ($ssl_server_name != $host) {{ return 421; }}
        proxy_http_version 1.1;
        proxy_buffering off;
        proxy_set_header Connection $connection_header;
        proxy_set_header Upgrade $http_upgrade;
        proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
        location / {{ proxy_pass http://127.0.0.1:{gateway}; }}
        location /grpc. {{ grpc_pass grpc://127.0.0.1:{gateway}; }}
    }}
}}
"""


def differs(text):
    """Numbers that differ from l7.conf without a reason, and directives that are missing."""
    wrong = []
    if (int(re.search(r"limit_conn by_address (\d+);", text)[1]),
            int(re.search(r"rate=(\d+)r/s;", text)[1])) != l7_numbers():
        wrong.append("other limits per address than in l7.conf")
    for name in ("proxy_ssl_server_name on;", "proxy_ssl_verify on;", "grpc_ssl_server_name on;",
                 "grpc_ssl_verify on;", "proxy_http_version 1.1;"):
        if name not in text:
            wrong.append(f"not {name}")
    return wrong


class CloudRun(unittest.TestCase):
    def test_paths_and_limits(self):
        # Pub/Sub pushes to Cloud Run itself.
        pushes = [f"{path.path} is not passed on" for path in PUSH_PATHS]
        self.assertEqual(deploy_paths.nginx(CONF), pushes)
        self.assertEqual(differs(CONF), [])
        for old, new in (("by_address 1000", "by_address 10"), ("rate=100r/s", "rate=10r/s"),
                         ("proxy_ssl_verify on;", ""), ("proxy_ssl_server_name on;", "")):
            self.assertNotEqual(differs(CONF.replace(old, new)), [], old)
        for old, new in (("proxy_buffering off;", ""), ("= /ws ", "= /w "), ("(ticket|", "("),
                         ("proxy_read_timeout 60s;", "proxy_read_timeout 30s;")):
            self.assertIn(old, CONF)
            self.assertNotEqual(deploy_paths.nginx(CONF.replace(old, new)), pushes, old)

    def front(self, gateway, **changes):
        """The port of nginx with cloud-run.conf, before a stand-in for Cloud Run, before a gateway."""
        if not shutil.which(NGINX):
            not_checked("deploy/nginx/cloud-run.conf, since nginx is not installed")
        tls = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, tls)
        names = ",".join(f"DNS:{name}" for name in NAMES)
        certificate(tls, "-addext", f"subjectAltName={names}")
        cloud_run, port = free_port(), free_port()
        Nginx(self, IN_CLOUD_RUNS_PLACE.format(temporary=temporary(), folder=tls, port=cloud_run,
                                               names=" ".join(NAMES), gateway=gateway), cloud_run)
        text = edited(self, CONF, {
            **{f"server {name}:443": f"server 127.0.0.1:{cloud_run}" for name in NAMES},
            "listen 443 ssl": f"listen {port} ssl",
            "server_name events.example.com;": "server_name localhost;",
            "/etc/nginx/tls/cert.pem": str(tls / "tls.crt"),
            "/etc/nginx/tls/key.pem": str(tls / "tls.key"),
            "/etc/ssl/certs/ca-certificates.crt": str(tls / "tls.crt"),
            "http {\n": f"http {{ {temporary()}\n",
        } | changes)
        Nginx(self, text, port)
        until("nginx listens", lambda: listens(port))
        return port

    def curl(self, port, path, *options, client="127.0.0.1"):
        command = ["curl", "-sk", "-m", str(PATIENCE), "-o", "/dev/null", "-w", "%{http_code}", *options]
        said = subprocess.run([*command, "--interface", client, f"https://{client}:{port}{path}"],
                              capture_output=True)
        return said.stdout.decode()

    def gateway(self):
        return Gateway(self, STREAMS_PER_ADDRESS="1", TRUSTED_PROXIES="2", PUBLISH_AUTH="none")

    def test_streams_sockets_and_calls_reach_the_service(self):
        gateway = self.gateway()
        port = self.front(gateway.port)
        reader = Reader(self, f"https://127.0.0.1:{port}/events?topic=orders")
        reader.until("event: stream-open")
        websocket = WebSocket(self, port, "/ws?topic=orders", client="127.0.0.3")
        self.assertEqual(websocket.record()["type"], "open")
        self.assertEqual(push(gateway.port, "orders", "hello", 1), 204)
        self.assertEqual(reader.until("data: hello")[1], "data: hello")
        self.assertEqual(websocket.record()["data"], "hello")
        self.assertEqual(self.curl(port, "/publish/orders", "-d", "published"), "200")
        self.assertEqual(reader.until("data: published")[1], "data: published")
        call = ["--http2", "-H", "Content-Type: application/grpc", "-H", "TE: trailers", "-X", "POST"]
        frame = Path(tempfile.mkdtemp(), "frame")
        self.addCleanup(shutil.rmtree, frame.parent)
        frame.write_bytes(bytes(5))
        call += ["--data-binary", f"@{frame}"]
        self.assertEqual(self.curl(port, "/grpc.health.v1.Health/Check", *call), "200")
        self.assertEqual(self.curl(port, "/push/orders", "-d", "{}"), "404")
        self.assertEqual(self.curl(port, "/metrics"), "404")
        # 127.0.0.1 has its one stream; another client has its own.
        forged = ["-H", "X-Forwarded-For: 203.0.113.9", "-H", "Accept: */*"]
        self.assertEqual(self.curl(port, "/events", *forged), "503")
        other = Reader(self, f"https://127.0.0.2:{port}/events", "--interface", "127.0.0.2")
        other.until("event: stream-open")

    def test_without_the_services_name_nothing_is_reached(self):
        gateway = self.gateway()
        for changes in ({"proxy_ssl_server_name on;": ""},
                        {"proxy_ssl_name $service;": "proxy_ssl_name other.run.app;"},
                        {"proxy_set_header Host $service;": "proxy_set_header Host $host;"}):
            port = self.front(gateway.port, **changes)
            self.assertNotEqual(self.curl(port, "/ready"), "200", changes)
        port = self.front(gateway.port)
        self.assertEqual(self.curl(port, "/ready"), "200")

    def test_an_event_source_is_told_to_come_back(self):
        port = self.front(free_port())
        reader = Reader(self, f"https://127.0.0.1:{port}/events", "-H", "Accept: text/event-stream")
        self.assertIn("busy", reader.until("data:")[1])
        self.assertEqual(self.curl(port, "/events", "-H", "Accept: */*"), "503")


if __name__ == "__main__":
    unittest.main()
