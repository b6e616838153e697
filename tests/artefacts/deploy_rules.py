"""What must hold between the artefacts of deploy/ and the gateway's own settings. Each rule takes
what an artefact says and returns its problems, so that a test can break an artefact and see it."""

import re
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]
UNITS = {"ms": 0.001, "s": 1, "sec": 1, "m": 60, "min": 60, "h": 3600}
SIZES = {"MiB": 2**20, "Mi": 2**20, "GiB": 2**30, "Gi": 2**30}

# Cloud Run: https://cloud.google.com/run/docs/configuring/request-timeout,
# about-concurrency, container-contract#instance-shutdown
TIMEOUT_MAX, CONCURRENCY_MAX, KILLED_AFTER = 3600, 1000, 10
# Seconds that readers of a process in memory may stay at an old revision (docs/deploy/cloud-run.md).
ALONE_FOR_MAX = 300


def seconds(text):
    number, unit = re.fullmatch(r"([\d.]+) ?(\w+)", text).groups()
    return float(number) * UNITS[unit]


def size(text):
    number, unit = re.fullmatch(r"(\d+) ?(\w+)", text).groups()
    return int(number) * SIZES[unit]


def source(path):
    return (PROJECT / "src" / path).read_text()


def flag_defaults():
    """The gateway's flags and their defaults."""
    files = sorted((PROJECT / "src/config/flags").glob("*.rs"))
    text = re.sub(r"\s+", " ", "".join(file.read_text() for file in files))
    found = re.findall(r'flag\( ?"([a-z0-9-]+)", ?"[^"]*", ?(?:Some\("([^"]*)"\)|None)', text)
    return dict(found)


def environment_name(flag):
    return "STREAM_EVENTS_" + flag.upper().replace("-", "_")


def constant(path, name):
    """A Duration of the source, in seconds."""
    text = source(path)
    unit, number = re.search(rf"{name}: Duration = Duration::from_(\w+)\(([\d_]+)\)", text).groups()
    return int(number.replace("_", "")) * {"secs": 1, "millis": 0.001}[unit]


def settings_known(text):
    """Settings and flags that the gateway has not."""
    known = {environment_name(flag) for flag in flag_defaults()}
    used = set(re.findall(r"STREAM_EVENTS_[A-Z0-9_]+[A-Z0-9]", text)) - {"STREAM_EVENTS_BINARY"}
    flags = set(re.findall(r"`--([a-z][a-z0-9-]+)", text))
    return [f"no setting: {name}" for name in sorted(used - known)] + [
        f"no flag: --{flag}" for flag in sorted(flags - set(flag_defaults()))
    ]


def metrics_known(text):
    """Metrics and values of labels that the gateway has not."""
    names = set(re.findall(r'"([a-z_]+)"', source("telemetry/metrics.rs") + source("server/health.rs")))
    known = {f"stream_events_{name.removeprefix('stream_events_')}" for name in names}
    problems = []
    for name, labels in re.findall(r"\b(stream_events_[a-z_]+[a-z])(\{[^}]*\})?", text):
        if re.sub("_(bucket|sum|count)$", "", name) not in known:
            problems.append(f"no metric: {name}")
        for value in re.findall(r'[a-z]+=~?"([^"]*)"', labels):
            for one in value.split("|"):
                if not any(f'"{one}"' in path.read_text() for path in SOURCES):
                    problems.append(f"no value of a label: {one}")
    return problems


SOURCES = sorted((PROJECT / "src").rglob("*.rs"))


def cloud_run(service):
    template = service["spec"]["template"]
    notes, spec = template["metadata"]["annotations"], template["spec"]
    container = spec["containers"][0]
    own = {entry["name"]: entry["value"] for entry in container["env"]}

    def setting(flag):
        return own.get(environment_name(flag), flag_defaults()[flag])

    def number(name):
        return int(notes[f"autoscaling.knative.dev/{name}"])

    wrong = settings_known(str(service))
    readers = int(setting("subscribers-max"))
    # WebSockets do not pass HTTP/2 end to end: https://cloud.google.com/run/docs/triggering/websockets
    protocol = "http1" if service["metadata"]["name"].endswith("-ws") else "h2c"
    if container["ports"] != [{"name": protocol, "containerPort": 8080}]:
        wrong.append(f"not {protocol} on the default port")
    if not spec["timeoutSeconds"] <= TIMEOUT_MAX:
        wrong.append("a timeout that Cloud Run does not know")
    if readers > 1 and seconds(setting("stream-age-max")) >= spec["timeoutSeconds"]:
        wrong.append("Cloud Run cuts streams before the gateway ends them")
    if not readers < spec["containerConcurrency"] <= CONCURRENCY_MAX:
        wrong.append("streams leave no room for other requests")
    if int(setting("http2-streams-max")) < spec["containerConcurrency"]:
        wrong.append("a connection takes fewer requests than Cloud Run may put on it")
    if seconds(setting("drain-delay")) + seconds(setting("drain-timeout")) + 1 > KILLED_AFTER:
        wrong.append("Cloud Run kills it while it drains")
    if notes["run.googleapis.com/cpu-throttling"] != "false":
        wrong.append("no CPU to read the log with")
    if not setting("backplane").startswith("redis"):
        if number("maxScale") > 1:
            wrong.append("several instances without a log that they share")
        # A new revision leaves readers at the old one, where no push comes any more.
        if seconds(setting("stream-age-max")) > ALONE_FOR_MAX:
            wrong.append("readers of a replaced revision hear nothing for long")
    if not 1 <= number("minScale") <= number("maxScale"):
        wrong.append("no instance is warm")
    for name in ("startupProbe", "livenessProbe"):
        probe = container.get(name, {}).get("httpGet")
        if probe is None:
            wrong.append(f"no {name}")
        elif probe["path"].endswith("z") or probe["port"] != 8080:
            wrong.append(f"a {name} that Cloud Run cannot ask")
    # Pushes as they come, and decoded from base64; 128 MiB for streams, ids and the program.
    held = size(setting("ring-bytes-total")) + size(setting("push-bytes-in-flight")) * 7 / 4
    if held + 128 * 2**20 > size(container["resources"]["limits"]["memory"]):
        wrong.append("more may be held than there is memory")
    wrong += limits_per_address(setting)
    iam = service["metadata"]["annotations"].get("run.googleapis.com/invoker-iam-disabled")
    open_to_all = (setting("push-auth") == "none" or setting("read-auth") == "anonymous"
                   or setting("publish-auth") == "none")
    if iam == "true" and open_to_all:
        wrong.append("open to anyone")
    if iam != "true" and setting("push-auth") == "oidc":
        wrong.append("a token whose signature Cloud Run has taken away cannot be checked")
    return wrong


def limits_per_address(setting):
    """One address cannot take all streams of an instance, or open them as fast as it likes."""
    readers, wrong = int(setting("subscribers-max")), []
    # The service for pushes has one stream, and IAM lets no reader in.
    if readers == 1:
        return wrong
    if not 0 < int(setting("streams-per-address")) <= readers / 10:
        wrong.append("one address can take more than a tenth of all streams")
    if int(setting("requests-per-address")) != l7_numbers()[1]:
        wrong.append("requests per address are not limited as in l7.conf")
    if int(setting("trusted-proxies")) == 0:
        wrong.append("all readers have the proxy's address")
    return wrong


def l7_numbers():
    """Streams, and requests a second, that deploy/nginx/l7.conf allows one address."""
    text = (PROJECT / "deploy/nginx/l7.conf").read_text()
    return (int(re.search(r"^\s*limit_conn by_address (\d+);", text, re.M)[1]),
            int(re.search(r"limit_req_zone .* rate=(\d+)r/s;", text)[1]))


def names_limits_per_address(text):
    """The file of a proxy without such limits says which of the gateway's to set."""
    streams, requests = l7_numbers()
    wanted = (f"--trusted-proxies 1 --streams-per-address {streams}",
              f"--requests-per-address {requests}")
    words = " ".join(text.replace("#", " ").split())
    return [f"does not name {flag}" for flag in wanted if flag not in words]


# Kong's own entities: https://github.com/Kong/kong/tree/master/kong/db/schema/entities
KONG = {
    "services": "name retries protocol host port path connect_timeout write_timeout read_timeout "
    "tags client_certificate tls_verify tls_verify_depth ca_certificates url enabled routes",
    "routes": "name protocols methods hosts paths headers https_redirect_status_code "
    "regex_priority strip_path path_handling preserve_host request_buffering response_buffering "
    "snis sources destinations tags service",
    "upstreams": "name algorithm hash_on hash_fallback slots healthchecks tags host_header "
    "client_certificate targets",
    "targets": "target weight tags",
    "healthchecks": "active passive threshold",
    "active": "type timeout concurrency http_path https_sni https_verify_certificate headers "
    "healthy unhealthy",
    "healthy": "interval http_statuses successes",
    "unhealthy": "interval http_statuses http_failures tcp_failures timeouts",
}


def unknown_to_kong(kind, entity):
    wrong = [f"{kind}: {field}" for field in entity if field not in KONG[kind].split()]
    for inner in KONG.keys() & entity.keys():
        those = entity[inner] if isinstance(entity[inner], list) else [entity[inner]]
        wrong += [problem for each in those for problem in unknown_to_kong(inner, each)]
    return wrong


def kong(config):
    wrong = []
    upstreams = {upstream["name"]: upstream for upstream in config["upstreams"]}
    for kind in ("upstreams", "services"):
        wrong += [problem for each in config[kind] for problem in unknown_to_kong(kind, each)]
    names = [route["name"] for service in config["services"] for route in service["routes"]]
    wrong += [f"two routes are named {name}" for name in set(names) if names.count(name) > 1]
    for service in config["services"]:
        if service["host"] not in upstreams:
            wrong.append(f"no upstream {service['host']}")
        if service["read_timeout"] <= 10_000:
            wrong.append("shorter than Pub/Sub's ack deadline")
        for route in service["routes"]:
            if route.get("strip_path", True):
                wrong.append(f"{route['name']}: the gateway would not know the path")
            if any("events" in path for path in route["paths"]):
                if route.get("response_buffering", True):
                    wrong.append("events wait for a buffer")
                if service["read_timeout"] / 1000 <= 2 * seconds(flag_defaults()["keep-alive"]):
                    wrong.append("an idle stream is cut between two keep-alives")
    return wrong


def envoy(config):
    listener, cluster = (config["static_resources"][kind][0] for kind in ("listeners", "clusters"))
    manager = listener["filter_chains"][0]["filters"][0]["typed_config"]
    routes = manager["route_config"]["virtual_hosts"][0]["routes"]
    actions = {str(list(route["match"].values())[0]): route["route"] for route in routes}
    wrong = []
    if actions["/events"].get("timeout") != "0s":
        wrong.append("streams are cut after Envoy's 15 s")
    if seconds(manager["stream_idle_timeout"]) <= 2 * seconds(flag_defaults()["keep-alive"]):
        wrong.append("an idle stream is cut between two keep-alives")
    if seconds(actions["/push"]["timeout"]) <= 10:
        wrong.append("shorter than Pub/Sub's ack deadline")
    limits = cluster["circuit_breakers"]["thresholds"][0]
    gateways = len(cluster["load_assignment"]["endpoints"][0]["lb_endpoints"])
    readers = gateways * int(flag_defaults()["subscribers-max"])
    if min(limits["max_connections"], limits["max_requests"]) < readers:
        wrong.append("fewer connections than there may be streams")
    options = list(cluster["typed_extension_protocol_options"].values())[0]
    idle = seconds(options["common_http_protocol_options"]["idle_timeout"])
    if idle >= constant("net/limiter.rs", "IDLE_MAX"):
        wrong.append("the gateway closes connections that Envoy is about to use")
    if "http_protocol_options" not in options["explicit_http_config"]:
        wrong.append("streams share a connection")
    for path in ("/events", "/push"):
        if "previous_hosts" not in str(actions[path].get("retry_policy")):
            wrong.append(f"{path}: a gateway that is gone is tried again")
    if not manager.get("use_remote_address"):
        wrong.append("clients may say where they come from")
    return wrong
