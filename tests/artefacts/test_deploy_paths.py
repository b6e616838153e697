"""The proxies of deploy/ pass on each public path, and each rule notices a path that is missing."""

import copy
import json
import re
import unittest

import deploy_paths as rules
from deploy_processes import PROJECT
from public_paths import GRPC_PATHS, INTERNAL_PATHS, OTHER_REQUESTS, PUBLIC_PATHS
from test_deploy import DEPLOY, load


def routes(config, key):
    """The lists of routes in a configuration: of each service of Kong, or of Envoy's listener."""
    if isinstance(config, dict):
        for name, value in config.items():
            if name == key and isinstance(value, list):
                yield value
            yield from routes(value, key)
    elif isinstance(config, list):
        for value in config:
            yield from routes(value, key)


class Paths(unittest.TestCase):
    def test_the_lists_are_those_of_the_document(self):
        document = json.loads((PROJECT / "src/server/api/openapi.json").read_text())["paths"]
        public = {public.path: public for public in PUBLIC_PATHS if public not in GRPC_PATHS}
        self.assertEqual(set(document), set(public) | INTERNAL_PATHS)
        for path in public:
            methods = {key.upper() for key in document[path] if key in ("get", "post", "put", "delete")}
            self.assertEqual(methods, set(public[path].methods) - {"HEAD", "OPTIONS"}, path)
        code = (PROJECT / "src/outlet/grpc/mod.rs").read_text()
        self.assertEqual(set(re.findall(r'"(/[^"]*/\{method\})"', code)), {each.path for each in GRPC_PATHS})

    def notices(self, rule, config, changes):
        self.assertEqual(rule(config), [])
        for said, change in changes:
            other = copy.deepcopy(config)
            changed = change(other)
            # A text is not changed in place.
            other = changed if isinstance(config, str) else other
            self.assertNotEqual(other, config, said)
            with self.subTest(said):
                self.assertIn(said, "; ".join(rule(other)))

    def test_nginx(self):
        l7, local = ((DEPLOY / path).read_text() for path in ("nginx/l7.conf", "local/nginx.conf"))
        # It passes on everything but its own page, in HTTP/1.1: gRPC-Web, and no gRPC.
        others = [f"{path.path}: the gateway is not spoken to in HTTP/2" for path in GRPC_PATHS]
        others += [f"{path} is passed on" for path in OTHER_REQUESTS]
        self.assertEqual(rules.nginx(local), others)

        def swap(old, new):
            return lambda text: text.replace(old, new)

        def without(public):
            """Takes the path out of its location."""
            # The dots of a pattern are escaped.
            name = public.path.split("/")[1].replace(".", r"\\?\.")
            return lambda text: re.sub(rf"(location [^{{]*)\b{name}\b", r"\1other", text)

        missing = [(f"{public.path} is not passed on", without(public)) for public in PUBLIC_PATHS]
        self.notices(rules.nginx, l7, [
            *missing,
            ("a handshake", swap("Connection $connection_header", 'Connection ""')),
            ("a handshake", swap("Upgrade $http_upgrade", "Upgrade $upgrade")),
            ("a handshake", swap("websocket upgrade;", "h2c upgrade;")),
            ("waits for a buffer", swap("proxy_buffering off;", "")),
            ("/ws is cut", swap("proxy_read_timeout 60s;", "proxy_read_timeout 30s;")),
            ("before the gateway", swap("proxy_read_timeout 60s;", "proxy_read_timeout 35s;")),
            ("published twice", swap("error timeout;", "error timeout non_idempotent;")),
            ("is not spoken to in HTTP/2", swap("grpc_pass grpc:", "proxy_pass http:")),
            ("Health/{method} is cut", swap("grpc_read_timeout 60s;", "grpc_read_timeout 20s;")),
            ("/wsx is passed on", swap("location = /ws", "location /ws")),
            ("/metrics is passed on", swap("return 404;", "proxy_pass http://gateways;")),
            ("/grpc-health-v1-Health/Check is passed on", swap(r"\.", ".")),
        ])
        self.assertIn("/ws: a handshake is not passed on",
                      rules.nginx(local.replace("Connection $connection_header", "X-Connection x")))

    def test_kong(self):
        def without(public):
            def change(config):
                for listed in routes(config, "routes"):
                    for route in listed:
                        route["paths"] = [path for path in route["paths"]
                                          if not re.match(path.removeprefix("~"), public.example)]
            return change

        def service(name, **fields):
            return lambda config: [each.update(fields) for each in config["services"]
                                   if each["name"] == name]

        self.notices(rules.kong, load("kong/kong.yaml"), [
            *[(f"{public.path} is not passed on", without(public)) for public in PUBLIC_PATHS],
            ("/ws is cut", service("events", read_timeout=20_000)),
            ("before the gateway", service("publish", read_timeout=15_000)),
            ("['OPTIONS'] is not", lambda c: c["services"][2]["routes"][0].update(methods=["POST"])),
            ("is not spoken to in HTTP/2", service("grpc", protocol="http")),
            ("/grpc-health-v1-Health/Check is passed on", service("grpc", routes=[
                {"paths": ["~/grpc.health.v1.Health/"], "methods": ["POST"]}])),
            ("/metrics is passed on", lambda c: c["services"][1]["routes"].append(
                {"paths": ["~/metrics$"], "methods": ["GET"]})),
        ])

    def test_envoy(self):
        def manager(config):
            listener = config["static_resources"]["listeners"][0]
            return listener["filter_chains"][0]["filters"][0]["typed_config"]

        def without(public):
            name = public.path.split("/")[1]

            def change(config):
                for route in next(routes(manager(config), "routes")):
                    route["match"] = json.loads(re.sub(rf"\b{name}\b", "other", json.dumps(route["match"])))
            return change

        def route(name, **fields):
            return lambda config: [each["route"].update(fields) for each in
                                   next(routes(manager(config), "routes")) if name in str(each["match"])]

        self.notices(rules.envoy, load("envoy/envoy.yaml"), [
            *[(f"{public.path} is not passed on", without(public)) for public in PUBLIC_PATHS],
            ("a handshake", route("/ws", upgrade_configs=[])),
            ("a handshake", lambda c: next(routes(manager(c), "routes"))[2].pop("request_headers_to_add")),
            ("a handshake", lambda c: manager(c)["http2_protocol_options"].pop("allow_connect")),
            ("/ws is cut", route("/ws", timeout="15s")),
            ("/ws is cut", lambda c: manager(c).update(stream_idle_timeout="20s")),
            ("before the gateway", route("/publish", timeout="15s")),
            ("published twice", route("/publish", retry_policy={"retry_on": "connect-failure,reset"})),
            ("is not spoken to in HTTP/2", route("StreamEvents", cluster="gateways")),
            ("Health/{method} is cut", route("StreamEvents", timeout="15s")),
            ("/ws/x is passed on", lambda c: next(routes(manager(c), "routes")).append(
                {"match": {"path_separated_prefix": "/ws"}, "route": {"timeout": "0s"}})),
        ])


if __name__ == "__main__":
    unittest.main()
