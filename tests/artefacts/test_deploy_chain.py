"""deploy/chain: the files fit each other, and what of the chain can be run here is run: l7.conf and
l4.conf in a real nginx, before a gateway, and before an nginx in Kong's place."""

import copy
import os
import re
import shutil
import subprocess
import tempfile
import unittest
from dataclasses import replace
from pathlib import Path

import deploy_chain as chain
from deploy_processes import (
    PATIENCE, PROJECT, Gateway, Process, Reader, listens, not_checked, push, until,
)
from deploy_websockets import WebSocket
from ports import free_port
from test_deploy_envoy import certificate

NGINX = "/usr/sbin/nginx"
MODULE = "/usr/lib/nginx/modules/ngx_stream_module.so"

# What Kong does with the settings of kong.env and its routes, by its source
# (kong/runloop/handler.lua, kong/templates/nginx_kong.lua), in the words of the nginx that it is.
IN_KONGS_PLACE = """
pid pid;
error_log error.log info;
events {{}}
http {{
    access_log off;
    {temporary}
    map "$realip_remote_addr $http_x_forwarded_proto" $refused {{
        default 1;
        "127.0.0.1 https" 0;
    }}
    map $http_upgrade $upgrade {{
        default "";
        websocket websocket;
    }}
    map $http_upgrade $connection_header {{
        default "";
        websocket upgrade;
    }}
    map $http_x_forwarded_for $forwarded {{
        "" $remote_addr;
        default "$http_x_forwarded_for, $realip_remote_addr";
    }}
    server {{
        listen 127.0.0.1:{port} {words};
        real_ip_header {real_ip};
        real_ip_recursive {recursive};
        set_real_ip_from {trusted};
        large_client_header_buffers {heads};
        client_max_body_size {body};
        location / {{
            if ($refused) {{ return 426; }}
            proxy_pass http://127.0.0.1:{gateway};
            proxy_http_version 1.1;
            proxy_set_header Connection $connection_header;
            proxy_set_header Upgrade $upgrade;
            proxy_set_header Host $host;
            proxy_set_header X-Forwarded-For $forwarded;
            proxy_buffering off;
        }}
    }}
}}
"""


class Rules(unittest.TestCase):
    def test_the_files_fit_and_each_rule_can_fail(self):
        files = chain.Files.read()
        self.assertEqual(chain.problems(files), [])

        def swap(part, old, new):
            def change(files):
                text = getattr(files, part)
                self.assertIn(old, text)
                return replace(files, **{part: text.replace(old, new)})
            return change

        def setting(part, name, value):
            return lambda files: replace(files, **{part: getattr(files, part) | {name: value}})

        def kong(change):
            def changed(files):
                other = copy.deepcopy(files.kong)
                change({service["name"]: service for service in other["services"]})
                return replace(files, kong=other)
            return changed

        for told, change in [
            ("answers 400", setting("kong_env", "KONG_PROXY_LISTEN", "0.0.0.0:8080 reuseport")),
            ("answers 400", swap("l4", "proxy_protocol on;", "")),
            ("sends none", setting("gateway_env", "STREAM_EVENTS_PROXY_PROTOCOL", "on")),
            ("does not say", swap("l7", "X-Forwarded-Proto $scheme", "X-Scheme $scheme")),
            ("believes nobody", setting("kong_env", "KONG_TRUSTED_IPS", "")),
            ("believes anyone", setting("kong_env", "KONG_TRUSTED_IPS", "0.0.0.0/0")),
            ("over TLS", kong(lambda s: s["push"]["routes"][0].update(protocols=["http"]))),
            ("trusts 1 ", setting("gateway_env", "STREAM_EVENTS_TRUSTED_PROXIES", "1")),
            ("trusts 3 ", setting("gateway_env", "STREAM_EVENTS_TRUSTED_PROXIES", "3")),
            ("trusts 2 ", swap("l7", "X-Forwarded-For $proxy_add", "X-Forwarded-For $http")),
            ("no route for /ticket", kong(lambda s: s["push"]["routes"].pop())),
            ("no route for /events", kong(lambda s: s["events"]["routes"][0].update(paths=[]))),
            ("l4.conf asks", setting("kong_env", "KONG_PROXY_LISTEN",
                                     "0.0.0.0:8000 proxy_protocol")),
            ("l7.conf asks", swap("l4", "listen 8080", "listen 8081")),
            ("refuses heads", setting("kong_env", "KONG_NGINX_HTTP_LARGE_CLIENT_HEADER_BUFFERS",
                                      "4 8k")),
            ("refuses bodies", setting("kong_env", "KONG_NGINX_HTTP_CLIENT_MAX_BODY_SIZE", "8m")),
            ("no route for /ws", kong(lambda s: s["events"]["routes"].pop())),
            ("no route for /publish/", kong(lambda s: s["publish"]["routes"].pop())),
            ("publish: Kong gives up", kong(lambda s: s["publish"].update(read_timeout=50_000))),
            ("push: Kong gives up", kong(lambda s: s["push"].update(read_timeout=12_000))),
            ("l4.conf closes", swap("l4", "proxy_timeout 630s", "proxy_timeout 30s")),
            ("no setting", setting("gateway_env", "STREAM_EVENTS_TRUSTED_PROXY", "2")),
        ]:
            self.assertIn(told, "".join(chain.problems(change(files))))


class Nginx(Process):
    def __init__(self, test, text, port):
        if not (shutil.which(NGINX) and Path(MODULE).exists()):
            not_checked("deploy/chain in nginx, since nginx or its stream module is not installed")
        self.port, self.folder = port, Path(tempfile.mkdtemp())
        test.addCleanup(shutil.rmtree, self.folder)
        # Its workers are another user when root starts it.
        os.chmod(self.folder, 0o755)
        (self.folder / "nginx.conf").write_text(text)
        command = [NGINX, "-p", self.folder, "-c", self.folder / "nginx.conf", "-e", "stderr"]
        super().__init__(test, [*command, "-g", "daemon off;"], stderr=subprocess.DEVNULL)
        until("nginx listens", lambda: listens(port))


def edited(test, text, edits):
    """A configuration with this machine's ports and files, and nothing else changed."""
    edits |= {"pid /run/nginx.pid;": "pid pid;", "/var/log/nginx/": ""}
    for old, new in edits.items():
        test.assertIn(old, text)
        text = text.replace(old, new)
    return text


def temporary():
    kinds = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
    return " ".join(f"{kind}_temp_path {kind};" for kind in kinds)


def servers(port):
    return {f"server 10.0.0.1{n}:8080 ": f"server 127.0.0.1:{port} " for n in (1, 2)}


class Chain(unittest.TestCase):
    def nginx(self, to, **changes):
        """l7.conf and l4.conf before a port; l7's."""
        files = chain.Files.read()
        l4_port, l7_port = free_port(), free_port()
        l4 = edited(self, files.l4, servers(to) | {"listen 8080": f"listen 127.0.0.1:{l4_port}"})
        Nginx(self, l4, l4_port)
        tls = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, tls)
        certificate(tls)
        l7 = edited(self, files.l7, servers(l4_port) | {
            "listen 443 ssl": f"listen {l7_port} ssl",
            "server_name events.example.com;": "server_name localhost;",
            "/etc/nginx/tls/cert.pem": str(tls / "tls.crt"),
            "/etc/nginx/tls/key.pem": str(tls / "tls.key"),
            "http {\n": f"http {{ {temporary()}\n",
        } | changes)
        Nginx(self, l7, l7_port)
        return l7_port

    def kong(self, gateway, **changed):
        own = chain.Files.read().kong_env | changed
        address, *words = own["KONG_PROXY_LISTEN"].split()
        port = free_port()
        return Nginx(self, IN_KONGS_PLACE.format(
            temporary=temporary(), port=port, gateway=gateway, trusted="127.0.0.1",
            words="proxy_protocol" if "proxy_protocol" in words else "",
            real_ip=own["KONG_REAL_IP_HEADER"], recursive=own["KONG_REAL_IP_RECURSIVE"],
            heads=own["KONG_NGINX_HTTP_LARGE_CLIENT_HEADER_BUFFERS"],
            body=own["KONG_NGINX_HTTP_CLIENT_MAX_BODY_SIZE"],
        ), port).port

    def gateway(self, **changed):
        own = chain.Files.read().gateway_env
        own = {name.removeprefix("STREAM_EVENTS_"): text for name, text in own.items()}
        return Gateway(self, STREAMS_PER_ADDRESS="1", PUBLISH_AUTH="none", **own | changed)

    def status(self, port, *options, path="/events", client="127.0.0.1"):
        command = ["curl", "-sk", "-m", str(PATIENCE), "-o", "/dev/null", "-w", "%{http_code}", *options]
        url = f"https://{client}:{port}{path}"
        said = subprocess.run([*command, "--interface", client, url], capture_output=True)
        return said.stdout.decode()

    def works(self, gateway, port):
        """An event goes through at once; each client address has its own limit."""
        reader = Reader(self, f"https://127.0.0.1:{port}/events?topic=orders")
        reader.until("event: stream-open")
        body = '{"message":{"data":"aGVsbG8=","messageId":"1"},"subscription":"s"}'
        self.assertEqual(self.status(port, "-d", body, path="/push/orders"), "204")
        self.assertEqual(reader.until("data: hello")[1], "data: hello")
        self.assertEqual(self.status(port, path="/readyz"), "200")
        self.assertEqual(self.status(port, "-d", "published", path="/publish/orders"), "200")
        self.assertEqual(reader.until("data: published")[1], "data: published")
        self.assertEqual(self.status(port, path="/presence/orders"), "200")
        # The streams of one address are counted, so the WebSocket is of another.
        websocket = WebSocket(self, port, "/ws?topic=orders", client="127.0.0.3")
        self.assertEqual(websocket.record()["type"], "open")
        attributes = ["--http1.1", "-H", "x-goog-pubsub-message-id: 2", "-d", "unwrapped"]
        for number in range(75):
            attributes += ["-H", f"attribute-{number}: {'x' * 1024}"]
        self.assertEqual(self.status(port, *attributes, path="/push/orders"), "204")
        self.assertEqual(websocket.record()["data"], "unwrapped")
        # The stream of 127.0.0.1 is open: a second is refused, whatever that client says of itself,
        # and another client's is not.
        before = gateway.metric("stream_events_streams")
        forged = ["-H", "X-Forwarded-For: 203.0.113.9", "-H", "Accept: */*"]
        self.assertEqual(self.status(port, *forged), "503")
        self.assertEqual(gateway.metric("stream_events_streams"), before)
        other = Reader(self, f"https://127.0.0.2:{port}/events", "--interface", "127.0.0.2")
        other.until("event: stream-open")

    def test_layer_7_before_layer_4_before_a_gateway(self):
        gateway = self.gateway(PROXY_PROTOCOL="on", TRUSTED_PROXIES="1")
        self.works(gateway, self.nginx(gateway.port))

    def test_layer_7_before_layer_4_before_what_kong_does(self):
        gateway = self.gateway()
        port = self.nginx(self.kong(gateway.port))
        self.works(gateway, port)
        # As the README says: Kong's port does not speak HTTP/2.
        call = ["-X", "POST", "-H", "Content-Type: application/grpc", "-H", "TE: trailers"]
        self.assertEqual(self.status(port, *call, path="/grpc.health.v1.Health/Check"), "502")

    def test_without_the_settings_of_the_chain_it_fails_as_its_readme_says(self):
        gateway = self.gateway(TRUSTED_PROXIES="1")
        # Kong as it is: it takes the PROXY header for the request.
        deaf = self.nginx(self.kong(gateway.port, KONG_PROXY_LISTEN="0.0.0.0:8080"))
        self.assertEqual(self.status(deaf, path="/readyz"), "400")
        port = self.nginx(self.kong(gateway.port), **{"X-Forwarded-Proto $scheme": "X-Not-Said 1"})
        self.assertEqual(self.status(port, path="/readyz"), "426")
        # One trusted proxy: all readers share the address of l4.conf.
        port = self.nginx(self.kong(gateway.port))
        Reader(self, f"https://127.0.0.1:{port}/events").until("event: stream-open")
        refused = ["-H", "Accept: */*"]
        self.assertEqual(self.status(port, *refused, client="127.0.0.2"), "503")


if __name__ == "__main__":
    unittest.main()
