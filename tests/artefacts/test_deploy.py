"""deploy/: the artefacts against the gateway's settings and their makers' schemas. Each rule is
also seen to notice what it is for."""

import copy
import re
import subprocess
import sys
import unittest

import deploy_rules as rules
import yaml
from deploy_processes import PROJECT, google_sdks, not_checked

DEPLOY = PROJECT / "deploy"


def load(path):
    return yaml.safe_load((DEPLOY / path).read_text())


class Rules(unittest.TestCase):
    def holds(self, rule, of, **broken):
        """The rule finds nothing, and finds what each of these changes breaks."""
        self.assertEqual(rule(copy.deepcopy(of)), [])
        for name, change in broken.items():
            other = copy.deepcopy(of)
            changed = change(other)
            # A text is not changed in place.
            other = changed if isinstance(of, str) else other
            self.assertNotEqual(other, of, f"{name} changes nothing")
            self.assertNotEqual(rule(other), [], f"{name} is not noticed")

    def test_settings_flags_and_metrics_are_the_gateways(self):
        for path in DEPLOY.rglob("*"):
            if path.is_file():
                text = path.read_text()
                self.assertEqual(rules.settings_known(text), [], path)
                self.assertEqual(rules.metrics_known(text), [], path)
        text = (DEPLOY / "RUNBOOK.md").read_text()
        self.assertGreater(len(set(re.findall(r"stream_events_\w+", text))), 15)
        self.assertNotEqual(rules.settings_known("STREAM_EVENTS_KEEP_ALIV"), [])
        self.assertNotEqual(rules.settings_known("`--keep-aliv`"), [])
        self.assertNotEqual(rules.metrics_known("stream_events_stream"), [])
        wrong = 'stream_events_pushes_total{outcome="stord"}'
        self.assertNotEqual(rules.metrics_known(wrong), [])

    def test_links_lead_somewhere(self):
        def dead(path, text):
            links = re.findall(r"\]\((?!https?:)([^)#]+)", text)
            return [link for link in links if not (path.parent / link).exists()]

        own = [PROJECT / "README.md", PROJECT / "k8s/README.md", *(PROJECT / "docs").rglob("*.md")]
        for path in [*DEPLOY.rglob("*.md"), *own]:
            self.assertEqual(dead(path, path.read_text()), [], path)
        self.assertEqual(dead(DEPLOY / "x.md", "[a](nowhere.md)"), ["nowhere.md"])

    def test_cloud_run(self):
        def env(service, name, value):
            for entry in service["spec"]["template"]["spec"]["containers"][0]["env"]:
                if entry["name"] == f"STREAM_EVENTS_{name}":
                    entry["value"] = value

        def template(service):
            return service["spec"]["template"]

        self.holds(
            rules.cloud_run,
            load("cloud-run/events.yaml"),
            age=lambda s: env(s, "STREAM_AGE_MAX", "60 min"),
            timeout=lambda s: template(s)["spec"].update(timeoutSeconds=300),
            too_long=lambda s: template(s)["spec"].update(timeoutSeconds=3601),
            concurrency=lambda s: template(s)["spec"].update(containerConcurrency=80),
            drain=lambda s: env(s, "DRAIN_TIMEOUT", "20 s"),
            shared=lambda s: template(s)["spec"]["containers"][0]["env"].append(
                {"name": "STREAM_EVENTS_HTTP2_STREAMS_MAX", "value": "100"}
            ),
            alone=lambda s: env(s, "BACKPLANE", "local"),
            open=lambda s: env(s, "READ_AUTH", "anonymous"),
            publish=lambda s: template(s)["spec"]["containers"][0]["env"].append(
                {"name": "STREAM_EVENTS_PUBLISH_AUTH", "value": "none"}
            ),
            memory=lambda s: env(s, "RING_BYTES_TOTAL", "1 GiB"),
            decoded=lambda s: env(s, "PUSH_BYTES_IN_FLIGHT", "256 MiB"),
            port=lambda s: template(s)["spec"]["containers"][0]["ports"][0].update(name="http1"),
            probe=lambda s: template(s)["spec"]["containers"][0]["startupProbe"]["httpGet"].update(
                path="/readyz"
            ),
            cpu=lambda s: template(s)["metadata"]["annotations"].update(
                {"run.googleapis.com/cpu-throttling": "true"}
            ),
            streams=lambda s: env(s, "STREAMS_PER_ADDRESS", "0"),
            most=lambda s: env(s, "STREAMS_PER_ADDRESS", "91"),
            requests=lambda s: env(s, "REQUESTS_PER_ADDRESS", "0"),
            proxy=lambda s: env(s, "TRUSTED_PROXIES", "0"),
            hung=lambda s: template(s)["spec"]["containers"][0].pop("livenessProbe"),
            cold=lambda s: template(s)["metadata"]["annotations"].update(
                {"autoscaling.knative.dev/minScale": "0"}
            ),
        )
        self.holds(
            rules.cloud_run,
            load("cloud-run/push.yaml"),
            unsigned=lambda s: env(s, "PUSH_AUTH", "oidc"),
            public=lambda s: s["metadata"]["annotations"].update(
                {"run.googleapis.com/invoker-iam-disabled": "true"}
            ),
        )

        self.holds(
            rules.cloud_run,
            load("cloud-run/trial.yaml"),
            late=lambda s: env(s, "STREAM_AGE_MAX", "55 min"),
            several=lambda s: template(s)["metadata"]["annotations"].update(
                {"autoscaling.knative.dev/maxScale": "2"}
            ),
            forgets=lambda s: template(s)["metadata"]["annotations"].update(
                {"autoscaling.knative.dev/minScale": "0"}
            ),
            anyone_reads=lambda s: env(s, "READ_AUTH", "anonymous"),
            anyone_pushes=lambda s: env(s, "PUSH_AUTH", "none"),
            greedy=lambda s: env(s, "STREAMS_PER_ADDRESS", "0"),
            iam=lambda s: s["metadata"].update(annotations={}),
            hung=lambda s: template(s)["spec"]["containers"][0].pop("livenessProbe"),
        )

    def test_cloud_run_has_every_field_and_annotation(self):
        sdk = next((sdk / "lib" for sdk in google_sdks()), None)
        if not sdk:
            not_checked("Cloud Run's fields, since Google's SDK is not installed")
        for name in ("events", "push", "trial"):
            service = load(f"cloud-run/{name}.yaml")
            self.assertEqual(unknown_to_cloud_run(sdk, service), "")
            broken = copy.deepcopy(service)
            broken["spec"]["template"]["spec"]["containers"][0]["prots"] = []
            self.assertIn("prots", unknown_to_cloud_run(sdk, broken))
            broken = copy.deepcopy(service)
            notes = broken["spec"]["template"]["metadata"]["annotations"]
            notes["run.googleapis.com/cpu-throtling"] = "false"
            self.assertIn("cpu-throtling", unknown_to_cloud_run(sdk, broken))

    def test_proxies_without_limits_per_address_name_the_gateways(self):
        for path in ("README.md", "envoy/envoy.yaml", "kong/kong.yaml"):
            self.holds(
                rules.names_limits_per_address,
                (DEPLOY / path).read_text(),
                streams=lambda text: text.replace("--streams-per-address 1000", ""),
                requests=lambda text: text.replace("--requests-per-address 100", ""),
                proxies=lambda text: text.replace("--trusted-proxies 1", "--trusted-proxies 0"),
            )

    def test_kong(self):
        self.holds(
            rules.kong,
            load("kong/kong.yaml"),
            buffering=lambda c: c["services"][0]["routes"][0].pop("response_buffering"),
            idle=lambda c: c["services"][0].update(read_timeout=20_000),
            push=lambda c: c["services"][1].update(read_timeout=5_000),
            path=lambda c: c["services"][0]["routes"][0].update(strip_path=True),
            name=lambda c: c["upstreams"][0].update(name="other"),
            twice=lambda c: c["services"][0]["routes"][1].update(name="events"),
            check=lambda c: c["upstreams"][0]["healthchecks"]["active"].update(timeouts=1),
            misspelt=lambda c: c["services"][0]["routes"][0].update(respons_buffering=False),
        )

    def test_envoy(self):
        def manager(config):
            chain = config["static_resources"]["listeners"][0]["filter_chains"][0]
            return chain["filters"][0]["typed_config"]

        def route(config, at):
            return manager(config)["route_config"]["virtual_hosts"][0]["routes"][at]["route"]

        def cluster(config):
            return config["static_resources"]["clusters"][0]

        def options(config):
            return list(cluster(config)["typed_extension_protocol_options"].values())[0]

        self.holds(
            rules.envoy,
            load("envoy/envoy.yaml"),
            timeout=lambda c: route(c, 0).pop("timeout"),
            idle=lambda c: manager(c).update(stream_idle_timeout="20s"),
            push=lambda c: route(c, 1).update(timeout="10s"),
            few=lambda c: cluster(c)["circuit_breakers"]["thresholds"][0].update(
                max_connections=1024
            ),
            late=lambda c: options(c)["common_http_protocol_options"].update(idle_timeout="900s"),
            shared=lambda c: options(c).update(explicit_http_config={"http2_protocol_options": {}}),
            same=lambda c: route(c, 1).update(retry_policy={"retry_on": "reset"}),
            spoofed=lambda c: manager(c).update(use_remote_address=False),
        )


def unknown_to_cloud_run(sdk, service):
    """Fields and annotations that Google's SDK has not. In a process of its own: the SDK brings
    its own modules."""
    script = PROJECT / "tests/artefacts/deploy_cloud_run.py"
    said = subprocess.run(
        [sys.executable, script, sdk], input=yaml.safe_dump(service), capture_output=True, text=True
    )
    assert said.returncode == 0, said.stderr
    return said.stdout.strip()


if __name__ == "__main__":
    unittest.main()
