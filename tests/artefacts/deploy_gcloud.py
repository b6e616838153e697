"""A stand-in for gcloud, for deploy/cloud-run/deploy. It knows gcloud's own commands and flags (TREE, a
file of the SDK), and writes down what is there. It refuses a command that needs what no earlier one has
made, and a command that makes what is there already.

    STATE=FILE TREE=FILE python3 deploy_gcloud.py COMMAND ...

TREE is what excerpt() has made of the SDK's file, which takes seconds to read. STATE.calls has a line for
each command. With SKIP=N the Nth (from 0) does nothing, as if it were missing; with FAIL=N it fails.
"""

import json
import os
import re
import runpy
import sys
from pathlib import Path

STATE = Path(os.environ.get("STATE", "/nonexistent"))
# The API that has to be on before a group's commands work.
APIS = {
    "artifacts": "artifactregistry", "builds": "cloudbuild", "iam": "iam", "pubsub": "pubsub",
    "redis": "redis", "run": "run", "secrets": "secretmanager",
}
# The one project that there is.
PROJECT = "my-project"


def refuse(why):
    sys.exit(f"gcloud: {why}")


def from_yaml(text):
    # The import takes a while, and most commands do not need it.
    import yaml

    return yaml.safe_load(text)


def ordinal(command):
    """Writes the command down, and returns its number (from 0)."""
    calls = STATE.with_name(f"{STATE.name}.calls")
    with calls.open("a") as file:
        file.write(f"{command}\n")
    return len(calls.read_text().splitlines()) - 1


class Cloud:
    def __init__(self):
        self.made = json.loads(STATE.read_text()) if STATE.exists() else {}

    def make(self, kind, name, value=True):
        self.made.setdefault(kind, {})[name] = value
        STATE.write_text(json.dumps(self.made))

    def create(self, kind, name, value=True):
        if name in self.made.get(kind, {}):
            refuse(f"ALREADY_EXISTS: {kind} {name}")
        self.make(kind, name, value)

    def wants(self, kind, name):
        found = self.made.get(kind, {}).get(name)
        return found if found is not None else refuse(f"NOT_FOUND: {kind} {name}")

    def account(self, address):
        name, project = re.fullmatch(r"([a-z-]+)@([a-z0-9-]+)\.iam.*", address).groups()
        if project != PROJECT:
            refuse(f"another project: {address}")
        self.wants("iam service-accounts", name)

    def service(self, service):
        """Cloud Run takes a service whose image and account are there."""
        name, spec = service["metadata"]["name"], service["spec"]["template"]["spec"]
        self.account(spec["serviceAccountName"])
        self.wants("image", spec["containers"][0]["image"])
        if "network-interfaces" in str(service):
            self.wants("api", "compute.googleapis.com")
        for volume in spec.get("volumes", []):
            secret = volume["secret"]["secretName"]
            self.wants("secrets", secret)
            self.wants("reader", f"{secret} serviceAccount:{spec['serviceAccountName']}")
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


def perform(cloud, command, given, flags):
    name = given[0] if given else ""
    group, _, verb = command.rpartition(" ")
    if command == "projects describe":
        if name != PROJECT:
            refuse(f"NOT_FOUND: project {name}")
    elif command == "services enable":
        for api in given:
            cloud.make("api", api)
    elif group == "pubsub subscriptions":
        subscription(cloud, verb, name, flags)
    elif group in KINDS and verb == "create":
        value = sys.stdin.read() if "--data-file" in flags else True
        cloud.create(group, placed(name, flags), value)
    elif group in KINDS and verb == "describe":
        cloud.wants(group, placed(name.split("@")[0], flags))
        if group == "redis instances":
            cloud.make("redis host", "127.0.0.1")
            print("127.0.0.1")
    elif command == "artifacts tags list":
        folder = f"{flags['--location']}-docker.pkg.dev/{PROJECT}/{flags['--repository']}"
        for image in cloud.made.get("image", {}):
            path, tag = image.split(":")
            if path == f"{folder}/{flags['--package']}":
                print(tag)
    elif command == "builds submit":
        build(cloud, name, flags)
    elif command == "secrets add-iam-policy-binding":
        cloud.wants("secrets", name)
        cloud.account(flags["--member"].removeprefix("serviceAccount:"))
        cloud.make("reader", f"{name} {flags['--member']}")
    elif command == "secrets versions access":
        print(cloud.wants("secrets", flags["--secret"]), end="")
    elif command == "run services replace":
        cloud.service(from_yaml(sys.stdin.read()))
    elif command == "run services add-iam-policy-binding":
        cloud.wants("service", name)
        cloud.account(flags["--member"].removeprefix("serviceAccount:"))
        cloud.make("invoker", f"{name} {flags['--member']}")
    elif command == "run services describe":
        cloud.wants("service", name)
        print(f"https://{name}.run.app")
    else:
        refuse(f"the stand-in does not know: {command}")


# Groups of commands with a plain `create` and `describe`.
KINDS = (
    "artifacts repositories", "iam service-accounts", "pubsub topics", "redis instances", "secrets",
)


def placed(name, flags):
    """The name after its region, if the flags have one."""
    region = flags.get("--location") or flags.get("--region")
    return f"{region}/{name}" if region else name


def build(cloud, folder, flags):
    image = flags["--substitutions"].removeprefix("_IMAGE=")
    host, project, repository, _ = image.split("/")
    region = host.removesuffix("-docker.pkg.dev")
    # The default account of builds is that of Compute Engine.
    cloud.wants("api", "compute.googleapis.com")
    cloud.wants("artifacts repositories", f"{region}/{repository}")
    if project != PROJECT:
        refuse(f"another project: {image}")
    config = from_yaml(Path(flags["--config"]).read_text())
    if not (Path(folder) / "Dockerfile").exists() or config["images"] != ["$_IMAGE"]:
        refuse("nothing is built, or pushed")
    cloud.create("image", image)


def subscription(cloud, verb, name, flags):
    if verb == "describe":
        cloud.wants("subscription", name)
        return
    topic = flags["--topic"] if verb == "create" else cloud.wants("subscription", name)["--topic"]
    cloud.wants("pubsub topics", topic)
    account = flags["--push-auth-service-account"]
    cloud.account(account)
    endpoint = flags["--push-endpoint"]
    service, path = re.fullmatch(r"https://([a-z-]+)\.run\.app/push/(.*)", endpoint).groups()
    if path != topic:
        refuse(f"pushes of {topic} would be read as {path}")
    made = cloud.wants("service", service)
    env = made["spec"]["template"]["spec"]["containers"][0]["env"]
    settings = {entry["name"].removeprefix("STREAM_EVENTS_"): entry["value"] for entry in env}
    if settings.get("PUSH_AUTH") == "none":
        cloud.wants("invoker", f"{service} serviceAccount:{account}")
    elif (settings.get("PUSH_AUDIENCE"), settings.get("PUSH_SERVICE_ACCOUNT")) != (
        flags.get("--push-auth-token-audience"), account
    ):
        refuse("the gateway refuses the token of these pushes")
    put = cloud.create if verb == "create" else cloud.make
    put("subscription", name, {**flags, "--topic": topic})


def excerpt(file):
    """gcloud's commands and flags, of the groups that the stand-in knows."""
    tree = runpy.run_path(str(file))["STATIC_COMPLETION_CLI_TREE"]
    groups = {name: tree["commands"][name] for name in [*APIS, "projects", "services"]}
    return json.dumps({"flags": tree["flags"], "commands": groups})


def main(arguments):
    tree = json.loads(Path(os.environ["TREE"]).read_text())
    cloud = Cloud()
    command, given, flags = parse(tree, arguments)
    number = str(ordinal(command))
    if number == os.environ.get("SKIP"):
        return
    if number == os.environ.get("FAIL"):
        refuse(f"failed: {command}")
    if os.environ.get("CLOUDSDK_CORE_PROJECT") != PROJECT:
        refuse("no project, or another")
    if api := APIS.get(command.split()[0]):
        cloud.wants("api", f"{api}.googleapis.com")
    perform(cloud, command, given, flags)


if __name__ == "__main__":
    main(sys.argv[1:])
