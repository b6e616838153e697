"""What each proxy of deploy/ does with the paths of public_paths.py. Each rule takes a configuration and
returns its problems."""

import re

from deploy_rules import flag_defaults, seconds
from public_paths import GRPC, OTHER_REQUESTS, PUBLIC_PATHS, REQUEST, STREAM, WEBSOCKET

# The gateway answers a publication within 30 s, and waits for Redis up to 8 s at the end of it.
PUBLISH_TIME = 38


def problems(places):
    """`places` returns what a proxy does with a path: its settings, or nothing if it answers itself."""
    for public in PUBLIC_PATHS:
        place = places(public.example)
        if place is None:
            yield f"{public.path} is not passed on"
        elif public.kind != REQUEST and not place["lasts"]:
            yield f"{public.path} is cut"
        elif public.kind == GRPC and not place["grpc"]:
            yield f"{public.path}: the gateway is not spoken to in HTTP/2"
        elif public.kind == STREAM and not place["unbuffered"]:
            yield f"{public.path} waits for a buffer"
        elif public.kind == WEBSOCKET and not place["upgrade"]:
            yield f"{public.path}: a handshake is not passed on"
        elif not set(public.methods) <= place["methods"]:
            yield f"{public.path}: {sorted(set(public.methods) - place['methods'])} is not passed on"
        elif public.path.startswith("/publish") and place["twice"]:
            yield f"{public.path}: a message may be published twice"
        elif public.path.startswith("/publish") and place["seconds"] <= PUBLISH_TIME:
            yield f"{public.path} is cut before the gateway answers"
    for path in OTHER_REQUESTS:
        if places(path) is not None:
            yield f"{path} is passed on"


ALL_METHODS = {method for public in PUBLIC_PATHS for method in public.methods}


def outlives_silence(text):
    return seconds(text) > 2 * seconds(flag_defaults()["keep-alive"])


def directives(text):
    """The directives of a block of nginx, without those of the blocks in it."""
    text = re.sub(r"#.*", "", text)
    while (less := re.sub(r"[^;{}]*\{[^{}]*\}", "", text)) != text:
        text = less
    found = {}
    for line in text.split(";"):
        name, _, value = " ".join(line.split()).partition(" ")
        found.setdefault(name, []).append(value)
    return found


def nginx(text):
    """Problems of an nginx.conf with one server."""
    inside = re.search(r"\n    server \{\n(.*?)\n    \}", text, re.S)[1]
    found = re.findall(r"location (=|~|)\s*(\S+) \{\n(.*?)\n        \}", inside, re.S)
    upgrade = re.search(
        r'map \$http_upgrade \$connection_header \{\s*default "";\s*websocket upgrade;\s*\}', text)

    def location(path):
        """As nginx chooses: a path, the first pattern, the longest beginning."""
        exact = [body for kind, name, body in found if kind == "=" and name == path]
        patterns = [body for kind, name, body in found if kind == "~" and re.search(name, path)]
        beginnings = [(len(name), body) for kind, name, body in found
                      if not kind and path.startswith(name)]
        return (exact + patterns or [max(beginnings)[1]])[0]

    def places(path):
        own = directives(inside) | directives(location(path))
        if not {"proxy_pass", "grpc_pass"} & set(own):
            return None
        name = "grpc" if "grpc_pass" in own else "proxy"
        wait = own.get(f"{name}_read_timeout", ["60s"])[0]
        headers = set(own["proxy_set_header"])
        return {
            "methods": ALL_METHODS, "unbuffered": own.get("proxy_buffering") == ["off"],
            "lasts": outlives_silence(wait), "seconds": seconds(wait),
            "twice": "non_idempotent" in own.get(f"{name}_next_upstream", [""])[0], "grpc": name == "grpc",
            "upgrade": upgrade and {"Connection $connection_header", "Upgrade $http_upgrade"} <= headers,
        }

    return list(problems(places))


def kong(config):
    """Problems of a declarative configuration of Kong."""
    def places(path):
        for service in config["services"]:
            for route in service["routes"]:
                if any(re.match(pattern.removeprefix("~"), path) for pattern in route["paths"]):
                    wait = service["read_timeout"] / 1000
                    return {
                        # A route of gRPC has no methods.
                        "methods": set(route.get("methods", ALL_METHODS)), "lasts": outlives_silence(f"{wait} s"),
                        "unbuffered": not route.get("response_buffering", True), "seconds": wait,
                        # Kong passes on each handshake, and its nginx never sends a POST again.
                        "upgrade": True, "twice": False, "grpc": service["protocol"] == "grpc",
                    }
        return None

    return list(problems(places))


def envoy(config):
    """Problems of a static configuration of Envoy."""
    listener = config["static_resources"]["listeners"][0]
    manager = listener["filter_chains"][0]["filters"][0]["typed_config"]
    lasts = outlives_silence(manager["stream_idle_timeout"])
    # Browsers send a handshake on a connection of HTTP/2 that they have, if they may.
    over_http2 = manager["http2_protocol_options"].get("allow_connect")
    speak_http2 = [cluster["name"] for cluster in config["static_resources"]["clusters"]
                   if "http2_protocol_options" in str(cluster.get("typed_extension_protocol_options"))]

    def matches(match, path):
        if "path_separated_prefix" in match:
            return (path + "/").startswith(match["path_separated_prefix"] + "/")
        pattern = re.escape(match["path"]) if "path" in match else match["safe_regex"]["regex"]
        return re.fullmatch(pattern, path)

    def places(path):
        for route in manager["route_config"]["virtual_hosts"][0]["routes"]:
            if matches(route["match"], path):
                own = route["route"]
                return {
                    "methods": ALL_METHODS, "unbuffered": True, "seconds": seconds(own["timeout"]),
                    "lasts": lasts and own["timeout"] == "0s", "grpc": own.get("cluster") in speak_http2,
                    "twice": "reset" in own.get("retry_policy", {}).get("retry_on", ""),
                    "upgrade": "sec-websocket-key" in str(route.get("request_headers_to_add"))
                    and over_http2 and {"upgrade_type": "websocket"} in own.get("upgrade_configs", []),
                }
        return None

    return list(problems(places))
