"""What must hold between the modules of deploy/terraform, its root, and what the documents create by
hand. Each rule returns its problems."""

import re

from deploy_terraform import arguments, blocks

# Resources without an argument `project`: they are in the project of the resource that they name.
WITHOUT_PROJECT = {"google_service_account_iam_member"}


def modules_fit(folders):
    """Arguments that the root gives and the module does not take, or that the module needs and the root
    does not give; and outputs that the root uses and the module does not have."""
    wrong, called = [], {}
    for kind, labels, body in blocks(folders.root):
        if kind == "module":
            given = arguments(body)
            called[labels[0]] = name = given.pop("source").strip('"').removeprefix("./modules/")
            given.pop("count", None)
            variables = {at[0]: inner for of, at, inner in blocks(folders.modules[name])
                         if of == "variable"}
            wanted = {each for each, inner in variables.items() if "default" not in arguments(inner)}
            wrong += [f"{name} takes no {each}" for each in sorted(given.keys() - variables)]
            wrong += [f"{name} is not given {each}" for each in sorted(wanted - given.keys())]
    wrong += [f"{name} is not used" for name in sorted(folders.modules.keys() - called.values())]
    for label, output in re.findall(r"module\.(\w+)(?:\[(?:0|\*)\])?\.(\w+)", folders.root):
        text = folders.modules.get(called.get(label), "")
        if output not in [at[0] for of, at, _ in blocks(text) if of == "output"]:
            wrong.append(f"{label} has no output {output}")
    return wrong


def reusable(folders):
    """What keeps a module from being used with for_each, in several projects or twice in one."""
    wrong = []
    for name, text in folders.modules.items():
        for kind, labels, body in blocks(text):
            if kind == "provider":
                wrong.append(f"{name} configures a provider")
            if kind == "data":
                wrong.append(f"{name} looks up {labels[0]}, which the root knows")
            own = arguments(body)
            if kind == "resource" and own.get("project") != "var.project" and (
                    labels[0] not in WITHOUT_PROJECT):
                wrong.append(f"{name}: {labels[0]}.{labels[1]} is in no project of its own")
            for key in ("name", "account_id"):
                if kind == "resource" and not re.search(r"var\.|each\.value|google_", own.get(key, "var.")):
                    wrong.append(f"{name}: {labels[0]}.{labels[1]} has one name for all")
            if kind == "resource" and labels[0] == "google_project_service" and (
                    own.get("disable_on_destroy") != "false"):
                wrong.append(f"{name}: destroying it switches a service off for the whole project")
    return wrong


# The commands of gcloud that create the same by hand.
BY_HAND = {
    "google_service_account": r"iam service-accounts create",
    "google_redis_instance": r"redis instances create",
    "google_pubsub_subscription": r"pubsub subscriptions create",
    "google_compute_global_address": r"compute addresses create",
    "google_compute_ssl_policy": r"compute ssl-policies create",
    "google_compute_security_policy": r"compute security-policies create",
}


def collisions(folders, by_hand):
    """Resources with a name that `by_hand`, the text of the documents and manifests, creates too."""
    root = {at[0]: arguments(body).get("default", "").strip('"') for kind, at, body in
            blocks(folders.root) if kind == "variable"}
    wrong = []
    for kind, _, body in blocks(folders.root):
        given = arguments(body) if kind == "module" else {"source": ""}
        name = given["source"].strip('"').removeprefix("./modules/")
        fill = lambda text, values: re.sub(  # noqa: E731
            r"\$?\{?\b(?:var\.(\w+)|each\.value)\b\}?",
            lambda found: values.get(found[1], "orders"), text.strip('"'))
        values = {key: fill(value, root) for key, value in given.items()}
        for of, labels, inner in blocks(folders.modules.get(name, "")):
            own = arguments(inner)
            called = own.get("account_id", own.get("name", ""))
            if of == "resource" and labels[0] in BY_HAND:
                made = re.findall(rf'(?:{BY_HAND[labels[0]]}) "?(\S+?)"?\s', by_hand)
                made = [re.sub(r"\$\{?TOPIC\}?", "orders", each) for each in made]
                if fill(called, values) in made:
                    wrong.append(f"{labels[0]}: {fill(called, values)} is created by hand too")
    return wrong


def services_first(text):
    """Roles that are given before a new project has Pub/Sub's own account, and resources that are created
    before their service is on."""
    wrong = []
    if 'service    = "pubsub.googleapis.com"' not in text or "google_project_service_identity" not in text:
        wrong.append("nothing asks for Pub/Sub's own account")
    for kind, labels, body in blocks(text):
        own = arguments(body)
        if own.get("member") == "local.pubsub" and "service_identity.pubsub" not in own.get("depends_on", ""):
            wrong.append(f"{labels[1]}: Pub/Sub's own account may not be there yet")
        if kind == "resource" and labels[0] in ("google_pubsub_topic", "google_service_account") and (
                "google_project_service.this" not in own.get("depends_on", "")):
            wrong.append(f"{labels[0]}.{labels[1]}: the service may not be on yet")
    return wrong
