"""A stand-in for gcloud, for the steps of deploy/cloud-run.md. It knows gcloud's own commands and
flags (TREE, a file of the SDK), refuses what no earlier step has made, and writes down what is there.

    STATE=FILE TREE=FILE python3 deploy_gcloud.py COMMAND ...

TREE is what excerpt() has made of the SDK's file, which takes seconds to read.
"""

import json
import os
import re
import runpy
import sys
from pathlib import Path

import yaml

STATE = Path(os.environ.get("STATE", "/nonexistent"))
# The API that has to be on before a group's commands work.
APIS = {
    "artifacts": "artifactregistry", "builds": "cloudbuild", "iam": "iam", "pubsub": "pubsub",
    "redis": "redis", "run": "run",
}


def refuse(why):
    sys.exit(f"gcloud: {why}")


class Cloud:
    def __init__(self):
        self.made = json.loads(STATE.read_text()) if STATE.exists() else {}

    def make(self, kind, name, value=True):
        self.made.setdefault(kind, {})[name] = value
        STATE.write_text(json.dumps(self.made))

    def wants(self, kind, name):
        found = self.made.get(kind, {}).get(name)
        return found if found is not None else refuse(f"NOT_FOUND: {kind} {name}")

    def account(self, address):
        name, project = re.fullmatch(r"([a-z-]+)@([a-z0-9-]+)\.iam.*", address).groups()
        if project != self.wants("config", "project"):
            refuse(f"another project: {address}")
        self.wants("account", name)

    def service(self, service):
        """Cloud Run takes a service whose image and account are there."""
        name, spec = service["metadata"]["name"], service["spec"]["template"]["spec"]
        self.account(spec["serviceAccountName"])
        self.wants("image", spec["containers"][0]["image"])
        if "network-interfaces" in str(service):
            self.wants("api", "compute.googleapis.com")
        for entry in spec["containers"][0]["env"]:
            if entry.get("value") == "" or "$" in entry.get("value", "$"):
                refuse(f"{entry['name']} has no value")
            if host := re.match(r"redis://(.*):6379$", entry["value"]):
                self.wants("redis host", host[1])
        self.make("service", name, service)


def parse(tree, arguments):
    """The command, what it is given, and its flags, if gcloud has them."""
    command, given, flags, node = [], [], {}, tree
    known = dict(tree["flags"])
    for argument in arguments:
        if argument.startswith("--"):
            name, _, value = argument.partition("=")
            if name.replace("--no-", "--", 1) not in known and name not in known:
                refuse(f"{' '.join(command)} has no flag {name}")
            flags[name] = value
        elif argument in node["commands"] and not given:
            node = node["commands"][argument]
            known |= node["flags"]
            command.append(argument)
        else:
            given.append(argument)
    if node["commands"]:
        refuse(f"no such command: {' '.join(arguments)}")
    return " ".join(command), given, flags


def from_flags(name, flags):
    """The service that `run deploy` makes of its flags, as YAML has it."""
    env = [pair.split("=", 1) for pair in flags["--set-env-vars"].split(",")]
    notes = {
        "autoscaling.knative.dev/minScale": flags["--min-instances"],
        "autoscaling.knative.dev/maxScale": flags["--max-instances"],
        "run.googleapis.com/cpu-throttling": str("--no-cpu-throttling" not in flags).lower(),
    }
    container = {
        "image": flags["--image"],
        "ports": [{"name": "h2c" if "--use-http2" in flags else "http1", "containerPort": 8080}],
        "resources": {"limits": {"cpu": flags["--cpu"], "memory": flags["--memory"]}},
        "env": [{"name": name, "value": value} for name, value in env],
    }
    spec = {
        "serviceAccountName": flags["--service-account"], "containers": [container],
        "timeoutSeconds": int(flags["--timeout"]),
        "containerConcurrency": int(flags["--concurrency"]),
    }
    iam_off = str("--no-invoker-iam-check" in flags).lower()
    own = {"run.googleapis.com/invoker-iam-disabled": iam_off}
    template = {"metadata": {"annotations": notes}, "spec": spec}
    return {"metadata": {"name": name, "annotations": own}, "spec": {"template": template}}


def perform(cloud, command, given, flags):
    name = given[0] if given else ""
    if command == "services enable":
        for api in given:
            cloud.make("api", api)
    elif command == "config set":
        cloud.make("config", *given)
    elif command == "artifacts repositories create":
        cloud.make("repository", f"{flags['--location']}/{name}")
    elif command == "builds submit":
        image = flags["--substitutions"].removeprefix("_IMAGE=")
        host, project, repository, _ = image.split("/")
        region = host.removesuffix("-docker.pkg.dev")
        cloud.wants("repository", f"{region}/{repository}")
        if project != cloud.wants("config", "project"):
            refuse(f"another project: {image}")
        build = yaml.safe_load(Path(flags["--config"]).read_text())
        if not (Path(name) / "Dockerfile").exists() or build["images"] != ["$_IMAGE"]:
            refuse("nothing is built, or pushed")
        cloud.make("image", image)
    elif command == "iam service-accounts create":
        cloud.make("account", name)
    elif command == "pubsub topics create":
        cloud.make("topic", name)
    elif command == "redis instances create":
        cloud.make("redis", f"{flags['--region']}/{name}")
    elif command == "redis instances describe":
        cloud.wants("redis", f"{flags['--region']}/{name}")
        cloud.make("redis host", "127.0.0.1")
        print("127.0.0.1")
    elif command == "run services replace":
        cloud.service(yaml.safe_load(sys.stdin))
    elif command == "run deploy":
        cloud.service(from_flags(name, flags))
    elif command == "run services add-iam-policy-binding":
        cloud.wants("service", name)
        cloud.account(flags["--member"].removeprefix("serviceAccount:"))
        cloud.make("invoker", f"{name} {flags['--member']}")
    elif command == "run services describe":
        cloud.wants("service", name)
        print(f"https://{name}.run.app")
    elif command == "pubsub subscriptions create":
        subscription(cloud, name, flags)
    else:
        refuse(f"the stand-in does not know: {command}")


def subscription(cloud, name, flags):
    cloud.wants("topic", flags["--topic"])
    account = flags["--push-auth-service-account"]
    cloud.account(account)
    service, topic = re.fullmatch(
        r"https://([a-z-]+)\.run\.app/push/(.*)", flags["--push-endpoint"]
    ).groups()
    if topic != flags["--topic"]:
        refuse(f"pushes of {flags['--topic']} would be read as {topic}")
    made = cloud.wants("service", service)
    env = made["spec"]["template"]["spec"]["containers"][0]["env"]
    settings = {entry["name"].removeprefix("STREAM_EVENTS_"): entry["value"] for entry in env}
    if settings["PUSH_AUTH"] == "none":
        cloud.wants("invoker", f"{service} serviceAccount:{account}")
    elif (settings["PUSH_AUDIENCE"], settings["PUSH_SERVICE_ACCOUNT"]) != (
        flags.get("--push-auth-token-audience"), account
    ):
        refuse("the gateway refuses the token of these pushes")
    cloud.make("subscription", name)


def excerpt(file):
    """gcloud's commands and flags, of the groups that the stand-in knows."""
    tree = runpy.run_path(str(file))["STATIC_COMPLETION_CLI_TREE"]
    groups = {name: tree["commands"][name] for name in [*APIS, "config", "services"]}
    return json.dumps({"flags": tree["flags"], "commands": groups})


def main(arguments):
    tree = json.loads(Path(os.environ["TREE"]).read_text())
    cloud = Cloud()
    command, given, flags = parse(tree, arguments)
    if api := APIS.get(command.split()[0]):
        cloud.wants("api", f"{api}.googleapis.com")
    perform(cloud, command, given, flags)


if __name__ == "__main__":
    main(sys.argv[1:])
