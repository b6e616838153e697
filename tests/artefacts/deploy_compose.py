"""What must hold in deploy/local/compose.yaml. Each rule takes the file as read, and returns its
problems."""

import re

import yaml
from deploy_rules import PROJECT, flag_defaults, seconds, settings_known


def reachable(services):
    return [
        f"a port for all: {port}"
        for service in services.values()
        for port in service.get("ports", [])
        if not port.startswith("127.0.0.1:")
    ]


def gateways(services):
    wrong = []
    for gateway in (services[f"gateway-{name}"] for name in "ab"):
        own = gateway["environment"]
        wrong += settings_known(str(own))
        if own["STREAM_EVENTS_BACKPLANE"] != "redis://redis:6379":
            wrong.append("they do not share a log")
        if seconds(gateway["stop_grace_period"]) <= seconds(flag_defaults()["drain-timeout"]):
            wrong.append("killed while it drains")
        if not gateway["read_only"] or gateway["cap_drop"] != ["ALL"]:
            wrong.append("may do more than it must")
    if "noeviction" not in services["redis"]["command"]:
        wrong.append("the gateway refuses this Redis")
    return wrong


def images(services):
    """Each image is pinned, or built by one service. The others that run it wait for that service,
    and never pull the image."""
    wrong, builders = [], {}
    for name, service in services.items():
        if "build" in service:
            builders.setdefault(service["image"], []).append(name)
    wrong += [f"{' and '.join(names)} build {image}: on a fresh machine the second fails"
              for image, names in builders.items() if len(names) > 1]
    for name, service in services.items():
        image = service["image"]
        if image in builders:
            if name in builders[image]:
                continue
            if builders[image][0] not in service["depends_on"]:
                wrong.append(f"{name} does not wait for {image}")
            if service.get("pull_policy") != "never":
                wrong.append(f"{name} may pull {image}, which is in no registry")
        elif not re.search(r":[\w.-]+@sha256:[0-9a-f]{64}$", image):
            wrong.append(f"{image}: no tag and digest")
    return wrong


def same_redis(services):
    """What is tried on one machine is what runs in a cluster."""
    file = PROJECT / "k8s/overlays/redis/server/server.yaml"
    docs = yaml.safe_load_all(file.read_text())
    spec = next(doc for doc in docs if doc["kind"] == "StatefulSet")["spec"]["template"]["spec"]
    in_cluster = spec["containers"][0]["image"].split("@")[0]
    here = services["redis"]["image"].split("@")[0]
    return [] if here == in_cluster else [f"{here} here, {in_cluster} in k8s/"]


def compose(config):
    services = config["services"]
    return [problem for rule in (reachable, gateways, images, same_redis)
            for problem in rule(services)]
