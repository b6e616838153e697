"""What has to be made with gcloud has the names that the manifests give, and does what they say."""

import os
import pathlib
import re
import subprocess
import tempfile
import unittest

import manifests
from manifests import annotation, at, one

SCRIPT = manifests.K8S / "components/cloud-armor/create-policy.sh"
# Cloud Armor's intervals, in seconds.
INTERVALS = {10, 30, 60, 120, 180, 240, 270, 300, 600, 900, 1200, 1800, 2700, 3600}


def commands(script):
    """The gcloud commands of a script, as it runs them."""
    with tempfile.TemporaryDirectory() as directory:
        path = pathlib.Path(directory, "gcloud")
        path.write_text('#!/bin/sh\nprintf "%s\\n" "$@" "" >>"$LOG"\n')
        path.chmod(0o755)
        log = pathlib.Path(directory, "log")
        environment = {"PATH": f"{directory}:{os.environ['PATH']}", "LOG": str(log)}
        subprocess.run(["bash", "-c", script], env=environment, check=True)
        return [part.split("\n") for part in log.read_text().rstrip("\n").split("\n\n")]


def rules(run):
    """The policy's rules by priority: their flags."""
    found = {}
    for command in run:
        if command[:4] == ["compute", "security-policies", "rules", "create"]:
            found[int(command[4])] = dict(flag[2:].split("=", 1) for flag in command[5:])
    return dict(sorted(found.items()))


def policy_problems(script, requests, attached):
    """What is wrong with the policy, for a gateway with that limit, and the load balancer's."""
    run = commands(script)
    created = [command[3] for command in run
               if command[:3] == ["compute", "security-policies", "create"]]
    if created != [attached]:
        yield f"the script creates {created}, the load balancer has {attached}"
    limited = False
    for priority, flags in rules(run).items():
        if flags["security-policy"] != attached:
            yield f"rule {priority} is in another policy"
        push = flags.get("expression") == \
            "request.path == '/push' || request.path.startsWith('/push/')"
        if push and (flags["action"] != "allow" or limited):
            yield f"rule {priority}: pushes are counted, and Pub/Sub comes from few addresses"
        if flags["action"] == "throttle":
            limited = True
            interval = int(flags["rate-limit-threshold-interval-sec"])
            if interval not in INTERVALS:
                yield f"rule {priority}: Cloud Armor has no interval of {interval} s"
            if int(flags["rate-limit-threshold-count"]) < 2 * requests * interval:
                yield f"rule {priority}: Cloud Armor answers 429 before the gateway says busy"
            if flags.get("enforce-on-key") != "IP":
                yield f"rule {priority}: not counted by address"
            if (flags.get("conform-action"), flags.get("exceed-action")) != ("allow", "deny-429"):
                yield f"rule {priority}: does not refuse what is too much"
    if not limited:
        yield "no rule limits anything"
    if not any(flags.get("expression", "").startswith("request.path == '/push'")
               for flags in rules(run).values()):
        yield "no rule excepts pushes: they are counted"


@unittest.skipUnless(manifests.TOOL, manifests.NO_TOOL)
class CloudArmor(unittest.TestCase):
    def attached(self, name):
        docs = manifests.variant(name)
        return (at(one(docs, "BackendConfig"), "spec", "securityPolicy", "name")
                or at(one(docs, "GCPBackendPolicy"), "spec", "default", "securityPolicy"))

    def problems(self, script):
        docs = manifests.variant("gke-ingress+cloud-armor")
        requests = int(manifests.settings(docs)["STREAM_EVENTS_REQUESTS_PER_ADDRESS"])
        return list(policy_problems(script, requests, "stream-events"))

    def test_the_component_gives_the_load_balancer_the_policy(self):
        for name in manifests.GOOGLE:
            with self.subTest(overlay=name):
                self.assertIsNone(self.attached(name))
                self.assertEqual(self.attached(f"{name}+cloud-armor"), "stream-events")

    def test_the_policy_excepts_pushes_and_is_behind_the_gateways_limit(self):
        script = SCRIPT.read_text()
        self.assertEqual(self.problems(script), [])
        for old, new, said in (
                ("policies create stream-events", "policies create other", "load balancer has"),
                ("rules create 1000", "rules create 3000", "pushes are counted"),
                ("request.path == '/push'", "request.path == '/p'", "no rule excepts pushes"),
                ("--action=allow", "--action=deny-403", "pushes are counted"),
                ("count=12000", "count=6000", "before the gateway"),
                ("interval-sec=60", "interval-sec=50", "no interval of 50 s"),
                ("key=IP", "key=ALL", "not counted by address"),
                ("deny-429", "allow", "does not refuse"),
                ("--action=throttle", "--action=allow", "no rule limits")):
            self.assertEqual(script.count(old), 1, old)
            with self.subTest(change=new):
                problems = self.problems(script.replace(old, new))
                self.assertTrue(any(said in problem for problem in problems), problems)


def unmade(docs, text):
    """What the manifests of an overlay name and the commands in a text do not make."""
    named = {
        "addresses": annotation(one(docs, "Ingress"), "kubernetes.io/ingress.global-static-ip-name")
        or at(one(docs, "Gateway"), "spec", "addresses", 0, "value"),
        "maps": annotation(one(docs, "Gateway"), "networking.gke.io/certmap"),
        "ssl-policies": at(one(docs, "FrontendConfig"), "spec", "sslPolicy")
        or at(one(docs, "GCPGatewayPolicy"), "spec", "default", "sslPolicy"),
    }
    for kind, name in named.items():
        command = re.search(rf"gcloud [a-z -]*{kind} create {name}\b.*", text)
        if name and not command:
            yield f"{kind}: nothing makes {name}"
        if kind == "ssl-policies" and not (command and "--min-tls-version=1.2" in command[0]):
            yield f"{kind}: TLS 1.0 and 1.1 are not refused"


@unittest.skipUnless(manifests.TOOL, manifests.NO_TOOL)
class Commands(unittest.TestCase):
    def test_each_name_is_made_by_a_command(self):
        for name in manifests.GOOGLE:
            text = (manifests.K8S / "overlays" / name / "kustomization.yaml").read_text()
            docs = manifests.variant(name)
            with self.subTest(overlay=name):
                self.assertEqual(list(unmade(docs, text)), [])
            for old, new in (("ssl-policies create stream-events", "ssl-policies create events"),
                             ("min-tls-version=1.2", "min-tls-version=1.0"),
                             ("addresses create stream-events", "addresses create events")):
                with self.subTest(overlay=name, change=new):
                    self.assertNotEqual(list(unmade(docs, text.replace(old, new))), [])

    def test_the_autoscalers_adapter_may_read_metrics(self):
        path = manifests.K8S / "components/gke-autoscaler/kustomization.yaml"
        text = path.read_text()
        self.assertIn("/custom-metrics-stackdriver-adapter/deploy/production/", text)
        self.assertIn("--role=roles/monitoring.viewer", text)
        self.assertIn("/ns/custom-metrics/sa/custom-metrics-stackdriver-adapter", text)


if __name__ == "__main__":
    unittest.main()
