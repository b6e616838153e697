"""What must hold between the files of the chain: deploy/nginx/l7.conf, deploy/nginx/l4.conf,
deploy/kong/kong.yaml and deploy/chain. Each rule takes all of them and returns its problems."""

import re
from dataclasses import dataclass
from ipaddress import ip_network

import yaml
from deploy_rules import PROJECT, seconds, settings_known
from public_paths import PUBLIC_PATHS

SIZES = {"k": 2**10, "m": 2**20}
# Names of locations of l7.conf.
PUSH, PUBLISH = "~ ^/push(/[^/]+)?$", "~ ^/publish/[^/]+$"


def nginx_size(text):
    return int(text[:-1]) * SIZES[text[-1]]


def environment(text):
    """The file that docker's --env-file takes."""
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return dict(line.split("=", 1) for line in lines)


@dataclass
class Files:
    l7: str
    l4: str
    kong: dict
    kong_env: dict
    gateway_env: dict

    @staticmethod
    def read():
        deploy = PROJECT / "deploy"
        return Files(
            (deploy / "nginx/l7.conf").read_text(),
            (deploy / "nginx/l4.conf").read_text(),
            yaml.safe_load((deploy / "kong/kong.yaml").read_text()),
            environment((deploy / "chain/kong.env").read_text()),
            environment((deploy / "chain/gateway.env").read_text()),
        )

    def routes(self):
        return [route for service in self.kong["services"] for route in service["routes"]]

    def listen(self):
        """Kong's address for requests, and the words behind it."""
        address, *words = self.kong_env["KONG_PROXY_LISTEN"].split(",")[0].split()
        return address, words


def location(l7, name):
    """The body of one of l7.conf's locations."""
    return re.search(rf"location {re.escape(name)} \{{\n(.*?)\n        \}}", l7, re.S)[1]


def directive(text, name):
    found = re.search(rf"^\s*{name} ([^;]*);", text, re.M)
    return found[1] if found else ""


def proxy_header(files):
    """Who sends the PROXY header is understood, and who waits for one gets one."""
    wrong = []
    sends = directive(files.l4, "proxy_protocol") == "on"
    if sends != ("proxy_protocol" in files.listen()[1]):
        wrong.append("Kong answers 400: l4.conf and KONG_PROXY_LISTEN differ about PROXY headers")
    if files.gateway_env["STREAM_EVENTS_PROXY_PROTOCOL"] != "off":
        wrong.append("the gateway waits for a PROXY header, and Kong sends none")
    return wrong


def scheme(files):
    """Kong learns that the client spoke TLS, from somebody whom it believes."""
    only_https = all(route["protocols"] in (["https"], ["grpcs"]) for route in files.routes())
    if not only_https:
        return ["a route of Kong's takes what did not come over TLS"]
    wrong = []
    if not re.search(r"proxy_set_header X-Forwarded-Proto \$scheme;", files.l7):
        wrong.append("Kong answers 426: l7.conf does not say that the client spoke TLS")
    trusted = files.kong_env.get("KONG_TRUSTED_IPS", "")
    networks = [ip_network(text) for text in trusted.split(",") if text]
    if not networks:
        wrong.append("Kong answers 426: KONG_TRUSTED_IPS is empty, so it believes nobody")
    if any(network.prefixlen < 8 for network in networks):
        wrong.append("Kong believes anyone")
    return wrong


def proxies(files):
    """The gateway counts those that add to X-Forwarded-For: l7.conf, and Kong always."""
    adds = "X-Forwarded-For $proxy_add_x_forwarded_for" in files.l7
    counted = int(files.gateway_env["STREAM_EVENTS_TRUSTED_PROXIES"])
    if counted != adds + 1:
        return [f"the gateway trusts {counted} proxies, and {adds + 1} add an address"]
    return []


def paths(files):
    """What l7.conf passes on has a route at Kong."""
    patterns = [path.removeprefix("~") for route in files.routes() for path in route["paths"]]
    asked = [public.example for public in PUBLIC_PATHS] + ["/readyz", "/ready"]
    return [f"Kong has no route for {path}, which l7.conf passes on" for path in asked
            if not any(re.match(pattern, path) for pattern in patterns)]


def ports(files):
    listens = directive(files.l4, "listen").split()[0]
    wrong = []
    for name, text, port in [
        ("l7.conf", files.l7, listens),
        ("l4.conf", files.l4, files.listen()[0].rsplit(":", 1)[1]),
    ]:
        servers = re.findall(r"^\s*server [\w.]+:(\d+) ", text, re.M)
        if not servers or set(servers) != {port}:
            wrong.append(f"{name} asks for ports {servers}, and the next listens on {port}")
    return wrong


def limits(files):
    """What a proxy lets through, the next does too, and none cuts what the one before waits for."""
    wrong = []
    own = files.kong_env
    number, each = directive(files.l7, "large_client_header_buffers").split()
    theirs = own.get("KONG_NGINX_HTTP_LARGE_CLIENT_HEADER_BUFFERS", "4 8k").split()
    if int(theirs[0]) < int(number) or nginx_size(theirs[1]) < nginx_size(each):
        wrong.append("Kong refuses heads that l7.conf lets through")
    for place in (PUSH, PUBLISH):
        body = directive(location(files.l7, place), "client_max_body_size")
        if nginx_size(own["KONG_NGINX_HTTP_CLIENT_MAX_BODY_SIZE"]) < nginx_size(body):
            wrong.append("Kong refuses bodies that l7.conf lets through")
    waits = {service["name"]: service["read_timeout"] / 1000 for service in files.kong["services"]}
    for name, place in [("events", "= /events"), ("events", "= /ws"), ("push", PUSH),
                        ("publish", PUBLISH)]:
        if waits[name] < seconds(directive(location(files.l7, place), "proxy_read_timeout")):
            wrong.append(f"{name}: Kong gives up before l7.conf does")
    upstream = re.search(r"upstream gateways \{(.*?)\n    \}", files.l7, re.S)[1]
    idle = seconds(directive(upstream, "keepalive_timeout"))
    if seconds(directive(files.l4, "proxy_timeout")) <= idle:
        wrong.append("l4.conf closes connections that l7.conf still keeps")
    return wrong


RULES = [proxy_header, scheme, proxies, paths, ports, limits]


def problems(files):
    known = "\n".join(files.gateway_env)
    return settings_known(known) + [problem for rule in RULES for problem in rule(files)]
