"""What must hold in deploy/terraform/modules/front: the public paths and the limits of Cloud Armor.
Each rule takes the module's text and returns its problems."""

import re

from deploy_rules import PROJECT, l7_numbers
from deploy_terraform import blocks
from public_paths import OTHER_REQUESTS, PUBLIC_PATHS, PUSH_PATHS, WEBSOCKET

POLICY = PROJECT / "k8s/components/cloud-armor/create-policy.sh"
LAST = 2147483647


def paths(text):
    """Public paths that do not reach their service, and others that reach one."""
    listed = re.search(r"^  paths = \{\n(.*?)^  \}", text, re.M | re.S)[1]
    found = {key: re.findall(r'"([^"]+)"', inner)
             for key, inner in re.findall(r"(\w+)\s+= \[(.*?)\]", listed, re.S)}

    def service(path):
        """As a URL map chooses: the path itself, or the longest beginning that ends in /*."""
        fits = [(len(each), key) for key, those in found.items() for each in those
                if path == each or each.endswith("/*") and path.startswith(each[:-1])]
        return max(fits)[1] if fits else None

    wrong = []
    for public in PUBLIC_PATHS:
        wanted = ("push" if public in PUSH_PATHS else "ws" if public.kind == WEBSOCKET else "events")
        if service(public.example) != wanted:
            wrong.append(f"{public.path} goes to {service(public.example)}")
    # A beginning takes longer paths too; the gateway answers these itself.
    beginnings = tuple(public.beginning for public in PUBLIC_PATHS if public.beginning)
    for path in OTHER_REQUESTS:
        if service(path) and not path.startswith(beginnings):
            wrong.append(f"{path} is passed on")
    # One for the URL map, and one for its path matcher.
    if len(re.findall(r"abort \{\s+http_status = 404\s+percentage  = 100\s", text)) != 2:
        wrong.append("what is not listed is passed on")
    return wrong


def armor(text):
    """What is wrong with the policy, compared with the gateway's limits and the script for Kubernetes."""
    body = next(body for kind, labels, body in blocks(text)
                if labels[:1] == ["google_compute_security_policy"])
    rules = {int(re.search(r"priority = (\d+)", rule)[1]): rule
             for rule in re.findall(r"^  rule \{\n(.*?)^  \}", body, re.M | re.S)}
    pushes = re.search(r'--expression="(.*)"', POLICY.read_text())[1]
    wrong, excepted, limited = [], False, False
    for priority, rule in sorted(rules.items()):
        if f'expression = "{pushes}"' in rule and 'action   = "allow"' in rule and not limited:
            excepted = True
        if 'action   = "throttle"' in rule:
            limited = True
            count, interval = (int(re.search(rf"{name}\s+= (\d+)", rule)[1])
                               for name in ("count", "interval_sec"))
            if count < 2 * l7_numbers()[1] * interval:
                wrong.append("Cloud Armor answers 429 before the gateway says busy")
            if f"threshold-count={count} " not in POLICY.read_text():
                wrong.append("another limit than on Kubernetes")
            for wanted in ('conform_action = "allow"', 'exceed_action  = "deny(429)"',
                           'enforce_on_key = "IP"'):
                if wanted not in rule:
                    wrong.append(f"not {wanted}")
    if not excepted:
        wrong.append("pushes are counted, and Pub/Sub comes from few addresses")
    if not limited:
        wrong.append("no rule limits anything")
    if 'action   = "allow"' not in rules.get(LAST, ""):
        wrong.append("the last rule does not allow what no other rule is for")
    return wrong


def load_balancer(text):
    wrong = []
    for kind, labels, body in blocks(text):
        if labels[:1] == ["google_compute_backend_service"]:
            if "timeout_sec" in body:
                wrong.append("Google refuses a timeout in front of Cloud Run")
            if "google_compute_security_policy" not in body:
                wrong.append("a backend service without the policy")
        if re.search("forwarding_rule|backend_service", "".join(labels[:1])) and (
                'load_balancing_scheme = "EXTERNAL_MANAGED"' not in body):
            wrong.append(f"{labels[0]}: another kind of load balancer")
    if 'min_tls_version = "TLS_1_2"' not in text or (
            "ssl_policy       = google_compute_ssl_policy" not in text):
        wrong.append("TLS 1.0 and 1.1 are not refused")
    if 'redirect_response_code = "PERMANENT_REDIRECT"' not in text:
        wrong.append("clear text is not redirected, or a POST becomes a GET")
    return wrong
