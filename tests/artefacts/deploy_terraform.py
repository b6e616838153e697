"""What must hold in deploy/terraform. Terraform itself reads it where it and its provider are; this
needs neither. Each rule takes the text of a folder's files, or of all folders, and returns its
problems."""

import re
from dataclasses import dataclass, field

from deploy_rules import PROJECT, constant, seconds

TERRAFORM = PROJECT / "deploy/terraform"

# The roles that are given, and to what each is bound. Nothing is given on the whole project.
ROLES = {
    "roles/iam.serviceAccountTokenCreator": "google_service_account_iam_member",
    "roles/iam.workloadIdentityUser": "google_service_account_iam_member",
    "roles/run.invoker": "google_cloud_run_v2_service_iam_member",
    "roles/pubsub.publisher": "google_pubsub_topic_iam_member",
    "roles/pubsub.subscriber": "google_pubsub_subscription_iam_member",
}


@dataclass
class Folders:
    """The text of the root module, and of each module in modules/."""

    root: str
    modules: dict = field(default_factory=dict)

    @classmethod
    def read(cls):
        text = lambda folder: "\n".join(  # noqa: E731
            path.read_text() for path in sorted(folder.glob("*.tf")))
        modules = sorted((TERRAFORM / "modules").iterdir())
        return cls(text(TERRAFORM), {module.name: text(module) for module in modules})


def blocks(text):
    """(kind, labels, body) of each block that begins a line."""
    pattern = r'^(\w+)((?: "[^"]+")*) \{\n(.*?)^\}'
    for kind, labels, body in re.findall(pattern, text, re.M | re.S):
        yield kind, re.findall(r'"([^"]+)"', labels), body


def consistent(text):
    """Names that are used and not declared, and the other way round."""
    text = re.sub(r"^\s*#.*$", "", text, flags=re.M)
    declared = set()
    for kind, labels, body in blocks(text):
        if kind == "resource":
            declared.add(".".join(labels))
        elif kind == "data":
            declared.add("data." + ".".join(labels))
        elif kind == "variable":
            declared.add(f"var.{labels[0]}")
        elif kind == "module":
            declared.add(f"module.{labels[0]}")
        elif kind == "locals":
            declared |= {f"local.{name}" for name in re.findall(r"^  (\w+) +?=", body, re.M)}
    # A name stands outside of a text, or in ${} within one.
    names = lambda found: " ".join(re.findall(r"\$\{(.*?)\}", found[1]))  # noqa: E731
    code = re.sub(r'"((?:[^"\\]|\\.)*)"', names, text)
    used = set(re.findall(r"\b(?:var|local|module)\.\w+|\bdata\.google_\w+\.\w+", code))
    used |= set(re.findall(r"(?<![.\w])google_\w+\.\w+", code))
    wrong = [f"not declared: {name}" for name in sorted(used - declared)]
    # A resource has an effect also if nothing names it; these have none.
    idle = {name for name in declared - used if name.startswith(("var.", "local.", "data."))}
    return wrong + [f"not used: {name}" for name in sorted(idle)]


def arguments(body):
    """The arguments of a block that are not in blocks within it: {name: value}."""
    return dict(re.findall(r"^  (\w+) += (.*)$", body, re.M))


def least_privilege(text):
    wrong = []
    for kind, labels, body in blocks(text):
        for role in re.findall(r'role\s+= "([^"]+)"', body):
            if ROLES.get(role) != labels[0]:
                wrong.append(f"{role} through {labels[0]}")
        if kind == "resource" and re.search(r"google_(project|folder|organization)_iam", labels[0]):
            wrong.append(f"a role on everything: {labels[0]}")
    signs = re.search(r'"signs_tokens" \{\n(.*?)^\}', text, re.M | re.S)[1]
    if "google_service_account.push.name" not in signs or "local.pubsub" not in signs:
        wrong.append("tokens of another account, or by another")
    calls = re.search(r'"calls_push" \{\n(.*?)^\}', text, re.M | re.S)[1]
    if "${var.push_account}" not in calls or 'this["push"]' not in calls:
        wrong.append("another account may push, or to another service")
    pulls = re.search(r'"gateway_pulls" \{\n(.*?)^\}', text, re.M | re.S)[1]
    if "google_service_account.gateway.member" not in pulls or "subscription.pull[" not in pulls:
        wrong.append("another account pulls, or another subscription")
    return wrong


def numbers(text):
    """The numbers of both subscriptions for the gateway."""
    wrong = []
    for name, parts in (("push", ("oidc_token", "dead_letter_policy", "retry_policy")),
                        ("pull", ("dead_letter_policy", "retry_policy"))):
        found = re.search(rf'"google_pubsub_subscription" "{name}" \{{\n(.*?)^\}}', text, re.M | re.S)[1]
        wrong += [f"{name}: {what}" for what in _subscription(found, parts)]
    return wrong


def _subscription(body, parts):
    def of(name):
        return re.search(rf'{name}\s+= "?([\w ]+)"?', body)[1]

    wrong = []
    if float(of("ack_deadline_seconds")) <= constant("backplane/redis/mod.rs", "CONFIRM_MAX"):
        wrong.append("Pub/Sub gives up before the gateway answers")
    if float(of("ack_deadline_seconds")) > 10:
        wrong.append("a push that is lost is noticed late")
    wait, most, tried = seconds(of("minimum_backoff")), seconds(of("maximum_backoff")), 0
    for _ in range(int(of("max_delivery_attempts")) - 1):
        tried, wait = tried + wait, min(2 * wait, most)
    if tried < 3600:
        wrong.append(f"an outage of {tried / 60:.0f} min moves all there is to the dead letters")
    if 'ttl = ""' not in body:
        wrong.append("a quiet subscription is deleted")
    for part in parts:
        if part not in body:
            wrong.append(f"no {part}")
    return wrong
