"""The Helm chart renders what the base renders, and with a backplane what components/redis renders."""

import pathlib
import re
import shutil
import subprocess
import tempfile
import unittest

import manifests
from manifests import ROOT, at, one

CHART = manifests.K8S / "chart"
OWN_HELM = ROOT / "target/check-artefacts/helm/helm"  # scripts/check-artefacts installs it.
HELM = shutil.which("helm") or (str(OWN_HELM) if OWN_HELM.exists() else None)
NO_HELM = "the chart, since there is no helm and npm installs none"
CHECKSUM = "checksum/settings"


def helm(command, values):
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        manifests.yaml.safe_dump(values, file)
        file.flush()
        return subprocess.run([HELM, *command, str(CHART), "--values", file.name],
                              capture_output=True, text=True)


def chart(values):
    result = helm(["template", "stream-events"], values)
    if result.returncode:
        raise AssertionError(result.stderr)
    return [doc for doc in manifests.yaml.safe_load_all(result.stdout) if doc]


def component_settings():
    """The settings that components/redis sets."""
    file = manifests.K8S / "components/redis/kustomization.yaml"
    (generator,) = manifests.yaml.safe_load(file.read_text())["configMapGenerator"]
    return dict(literal.split("=", 1) for literal in generator["literals"])


def comparable(docs):
    """The resources by kind and name, without the hashes and checksums of the settings."""
    found = {}
    for doc in docs:
        text = re.sub(rf"stream-events{manifests.HASH}", "stream-events", manifests.yaml.safe_dump(doc))
        doc = manifests.yaml.safe_load(text)
        annotations = at(doc, "spec", "template", "metadata", "annotations", default={})
        annotations.pop(CHECKSUM, None)
        if not annotations:
            at(doc, "spec", "template", "metadata", default={}).pop("annotations", None)
        found[doc["kind"], doc["metadata"]["name"]] = doc
    return found


@unittest.skipUnless(manifests.TOOL, manifests.NO_TOOL)
@unittest.skipUnless(HELM, NO_HELM)
class Chart(unittest.TestCase):
    maxDiff = None

    def test_the_defaults_render_the_base(self):
        self.assertEqual(comparable(chart({})), comparable(manifests.variant("base")))

    def test_a_backplane_renders_the_component_redis(self):
        wanted = manifests.render_own({"resources": ["k8s"], "components": ["k8s/components/redis"]})
        self.assertEqual(comparable(chart({"settings": component_settings()})), comparable(wanted))

    def test_values_reach_the_resources(self):
        rule = {"to": [{"ipBlock": {"cidr": "169.254.169.252/32"}}], "ports": [{"port": 988}]}
        proxy = {"podSelector": {"matchLabels": {"app": "proxy"}}}
        docs = chart({"image": {"repository": "registry.example.com/events", "tag": "1.2.3"},
                      "serviceAccount": {"annotations": {"account": "shop"}},
                      "networkPolicy": {"from": [proxy], "egress": [rule]},
                      "terminationGracePeriodSeconds": 70,
                      "resources": {"requests": {"cpu": "1"}, "limits": {"cpu": "2"}},
                      "autoscaling": {"minReplicas": 3, "maxReplicas": 9},
                      "settings": component_settings()})
        pod = manifests.pod(docs)
        self.assertEqual(pod["containers"][0]["image"], "registry.example.com/events:1.2.3")
        self.assertEqual(at(pod, "containers", 0, "resources", "limits", "cpu"), "2")
        self.assertEqual(pod["terminationGracePeriodSeconds"], 70)
        self.assertEqual(manifests.annotation(one(docs, "ServiceAccount"), "account"), "shop")
        policy = one(docs, "NetworkPolicy")["spec"]
        self.assertEqual(policy["ingress"][0]["from"], [proxy])
        self.assertEqual(policy["egress"][-1], rule)
        scaler = one(docs, "HorizontalPodAutoscaler")["spec"]
        self.assertEqual((scaler["minReplicas"], scaler["maxReplicas"]), (3, 9))

    def test_a_changed_setting_replaces_the_pods(self):
        def template(value):
            docs = chart({"settings": {"STREAM_EVENTS_DRAIN_TIMEOUT": value}})
            return at(one(docs, "Deployment"), "spec", "template")
        self.assertEqual(template("20 s"), at(one(chart({}), "Deployment"), "spec", "template"))
        self.assertNotEqual(template("19 s"), template("20 s"))

    def test_misspelt_and_dangerous_values_are_refused(self):
        for values, said in (
                ({"images": {"tag": "x"}}, "images"),
                ({"image": {"name": "x"}}, "name"),
                ({"settings": {"STREAM_EVENTS_SUBSCRIBERS_MAX": 1000}}, "string"),
                ({"settings": {"SUBSCRIBERS_MAX": "1000"}}, "SUBSCRIBERS_MAX"),
                ({"autoscaling": {"minReplicas": 1}}, "minReplicas"),
                # To Kubernetes both would mean that everyone may connect.
                ({"networkPolicy": {"from": []}}, "from"),
                ({"networkPolicy": {"from": None}}, "from")):
            with self.subTest(values=values):
                result = helm(["template", "stream-events"], values)
                self.assertNotEqual(result.returncode, 0)
                self.assertIn(said, result.stderr)

    def test_helm_finds_no_fault(self):
        result = helm(["lint", "--strict"], {})
        self.assertEqual(result.returncode, 0, result.stdout + result.stderr)


class Version(unittest.TestCase):
    def test_the_chart_has_the_version_of_the_program(self):
        program = re.search(r'^version = "(.+)"', pathlib.Path(ROOT, "Cargo.toml").read_text(), re.MULTILINE)
        told = manifests.yaml.safe_load((CHART / "Chart.yaml").read_text())
        self.assertEqual((told["version"], told["appVersion"]), (program[1], program[1]))


if __name__ == "__main__":
    unittest.main()
