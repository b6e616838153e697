"""deploy/terraform in terraform: its format, the settings of the services, and what it would create, with
a stand-in for Google's provider."""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

import deploy_terraform as terraform
import yaml
from deploy_processes import PROJECT, not_checked
from deploy_rules import settings_known
from terraform_schemas import schemas

DEPLOY = PROJECT / "deploy"


class Terraform(unittest.TestCase):
    def setUp(self):
        if not shutil.which("terraform"):
            not_checked("deploy/terraform in terraform, since there is none")
        self.folder = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, self.folder)
        # terraform does not look for newer versions.
        self.environment = os.environ | {"CHECKPOINT_DISABLE": "1"}
        for path in ("deploy/terraform", "deploy/cloud-run", "deploy/grafana", "k8s/components/prometheus"):
            shutil.copytree(PROJECT / path, self.folder / path,
                            ignore=shutil.ignore_patterns(".terraform*", "*.tfstate*"))

    def run_in(self, path, *command, said=None):
        command = ["terraform", f"-chdir={self.folder / 'deploy/terraform' / path}", *command]
        return subprocess.run(command, capture_output=True, text=True, input=said, env=self.environment)

    def test_format(self):
        said = self.run_in(".", "fmt", "-check", "-diff", "-recursive")
        self.assertEqual(said.returncode, 0, said.stdout)
        (self.folder / "deploy/terraform/modules/front/x.tf").write_text('variable   "x" {}\n')
        self.assertNotEqual(self.run_in(".", "fmt", "-check", "-recursive").returncode, 0)

    def test_modules_are_found(self):
        said = self.run_in(".", "get")
        self.assertEqual(said.returncode, 0, said.stderr)
        main = self.folder / "deploy/terraform/main.tf"
        main.write_text(main.read_text().replace("./modules/front", "./modules/back"))
        self.assertNotEqual(self.run_in(".", "get").returncode, 0)

    def test_validate(self):
        if self.run_in(".", "init", "-backend=false", "-input=false").returncode:
            self.stand_in()
        said = self.run_in(".", "validate")
        self.assertEqual(said.returncode, 0, said.stdout + said.stderr)
        for name, old, new in (("front", "sample_rate", "sampling"),
                               ("cloud-run", "max_instance_count", "maximum"),
                               ("pubsub", "service_account.push.email", "service_account.push.mail")):
            path = self.folder / f"deploy/terraform/modules/{name}/main.tf"
            text = path.read_text()
            path.write_text(text.replace(old, new))
            self.assertNotEqual(self.run_in(".", "validate").returncode, 0, new)
            path.write_text(text)

    def test_plan(self):
        self.stand_in()
        pushed = self.planned(topics=["orders"], endpoint="https://events.example.com/push")
        self.assertEqual({address.split(".")[1] for address in pushed if address.startswith("module.")},
                         {"pubsub"})
        pulled = self.planned(pull_topics=["jobs"], create_topics=False, kubernetes_namespace="default")
        self.assertIn("module.pubsub.google_service_account_iam_member.pods_are_gateway[0]", pulled)
        self.assertFalse([address for address in pulled if "google_pubsub_topic.events" in address])
        every = self.planned(topics=["orders"], pull_topics=["jobs"], image="the/image:1", websockets=True,
                             read_issuer="https://issuer", read_audience="a", domain="events.example.com",
                             notification_channels=["projects/p/notificationChannels/1"])
        # The endpoint is known before the service exists.
        push = every['module.pubsub.google_pubsub_subscription.push["orders"]']["push_config"][0]
        self.assertEqual(push["push_endpoint"],
                         "https://stream-events-push-123456789.europe-west1.run.app/push/orders")
        cloud_run = "module.cloud_run[0].google_cloud_run_v2_service.this"
        self.assertEqual({address for address in every if address.startswith(cloud_run)},
                         {f'{cloud_run}["{key}"]' for key in ("events", "push", "ws")})
        template = every[f'{cloud_run}["ws"]']["template"][0]
        self.assertEqual((template["timeout"], template["max_instance_request_concurrency"]), ("3600s", 1000))
        own = template["containers"][0]
        self.assertEqual(own["resources"][0]["limits"], {"cpu": "1", "memory": "1Gi"})
        self.assertIn({"name": "STREAM_EVENTS_TRUSTED_PROXIES", "value": "2"}, [
            {"name": entry["name"], "value": entry.get("value")} for entry in own["env"]])
        paths = every["module.front[0].google_compute_url_map.this"]["path_matcher"][0]["path_rule"]
        self.assertEqual(len(paths), 2)
        alerts = yaml.safe_load((PROJECT / "k8s/components/prometheus/rules.yaml").read_text())
        policies = [every[address] for address in every if "google_monitoring_alert_policy" in address]
        self.assertEqual(len(policies), len(alerts["spec"]["groups"][0]["rules"]))
        # Google refuses a rule for a metric that it has not seen yet, unless it is told not to look.
        for policy in policies:
            query = policy["conditions"][0]["condition_prometheus_query_language"][0]
            self.assertIs(query["disable_metric_validation"], True)

    def test_the_example_with_for_each_in_the_readme_has_a_plan(self):
        readme = (DEPLOY / "terraform/README.md").read_text()
        text = re.search(r"```hcl\n(.*?)```", readme, re.S)[1]
        text = re.sub(r'"git::https://[^"]*//deploy/terraform/(\S+)\?ref=\w+"', r'"./\1"', text)
        root = self.folder / "deploy/terraform"
        for path in ("main.tf", "outputs.tf", "variables.tf"):
            (root / path).unlink()
        versions = root / "versions.tf"
        versions.write_text(versions.read_text().partition("\nprovider")[0])
        (root / "main.tf").write_text(text)
        self.stand_in()
        planned = self.planned()
        for key in ("staging", "production"):
            own = planned[f'module.pubsub["{key}"].google_pubsub_subscription.push["orders"]']
            self.assertEqual(own["project"], f"shop-{key}")

    def stand_in(self):
        """Makes terraform use the stand-in for the provider (terraform_provider.py)."""
        folders = terraform.Folders.read()
        text = "\n".join([folders.root, *folders.modules.values()])
        found = {kind: set(re.findall(rf'^{kind} "(\w+)"', text, re.M)) for kind in ("resource", "data")}
        (self.folder / "schemas.json").write_text(json.dumps(schemas(found["resource"], found["data"])))
        overrides = ""
        for name in ("google", "google-beta"):
            program = self.folder / name / f"terraform-provider-{name}"
            program.parent.mkdir()
            script = [sys.executable, PROJECT / "tests/artefacts/terraform_provider.py"]
            command = " ".join(f"'{word}'" for word in [*script, self.folder / "schemas.json", name])
            program.write_text(f"#!/bin/sh\nexec {command}\n")
            program.chmod(0o755)
            overrides += f'"hashicorp/{name}" = "{program.parent}"\n'
        (self.folder / "rc").write_text(
            f"provider_installation {{\ndev_overrides {{\n{overrides}}}\ndirect {{}}\n}}\n")
        self.environment["TF_CLI_CONFIG_FILE"] = str(self.folder / "rc")
        said = self.run_in(".", "get")
        self.assertEqual(said.returncode, 0, said.stderr)

    def planned(self, **variables):
        """What terraform would create, by address: the values that are known."""
        root = self.folder / "deploy/terraform"
        (root / "terraform.tfvars.json").write_text(json.dumps({"project": "my-project"} | variables))
        said = self.run_in(".", "plan", "-input=false", "-out=plan")
        self.assertEqual(said.returncode, 0, said.stdout + said.stderr)
        plan = json.loads(self.run_in(".", "show", "-json", "plan").stdout)
        return {change["address"]: change["change"]["after"] for change in plan["resource_changes"]}

    def services(self, **variables):
        """What modules/cloud-run makes of the files of deploy/cloud-run, as terraform evaluates it."""
        module = self.folder / "deploy/terraform/modules/cloud-run"
        (module / "main.tf").write_text('locals {\n  redis_host = var.redis_host\n}\n')
        for path in ("versions.tf", "outputs.tf"):
            (module / path).unlink(missing_ok=True)
        given = {
            "project": "my-project", "project_number": "123456", "region": "europe-west1",
            "image": "the/image:1", "gateway_account": "gateway@x", "push_account": "push@x",
            "read_issuer": "https://issuer", "read_audience": "readers", "redis_host": "10.0.0.3",
        } | variables
        (module / "terraform.tfvars.json").write_text(json.dumps(given))
        parts = ", ".join(f"{name} = local.{name}" for name in ("parts", "settings", "ingress", "urls"))
        asked = f"jsonencode({{ {parts} }})"
        said = self.run_in("modules/cloud-run", "console", said=asked)
        self.assertEqual(said.returncode, 0, said.stderr)
        return json.loads(json.loads(said.stdout.strip().splitlines()[-1]))

    def test_cloud_run_services_are_those_of_the_files(self):
        alone = self.services()
        self.assertEqual(set(alone["parts"]), {"events", "push"})
        # The services of docs/deploy/cloud-run.md have these names. Those of Terraform have others.
        self.assertFalse({part["name"] for part in self.services(websockets=True)["parts"].values()}
                         & {"events", "events-push", "events-ws"})
        for key, part in alone["parts"].items():
            file = (DEPLOY / f"cloud-run/{key}.yaml").read_text().replace("${IMAGE}", "the/image:1")
            template = yaml.safe_load(file)["spec"]["template"]
            self.assertEqual(part["notes"], template["metadata"]["annotations"])
            own = template["spec"]["containers"][0]
            self.assertEqual(part["container"]["startupProbe"], own["startupProbe"])
            settings = alone["settings"][key]
            self.assertEqual(set(settings), {entry["name"] for entry in own["env"]})
            self.assertEqual(settings_known("\n".join(settings)), [])
            # Nothing is left for envsubst, and nothing is empty.
            self.assertNotRegex(json.dumps([part, settings]), r"\$\{")
            self.assertEqual([name for name, value in settings.items() if not value], [])
            self.assertEqual(settings["STREAM_EVENTS_BACKPLANE"], "redis://10.0.0.3:6379")
            self.assertEqual(part["container"]["image"], "the/image:1")
        events = alone["settings"]["events"]
        self.assertEqual(events["STREAM_EVENTS_READ_JWKS_URL"], "https://issuer/.well-known/jwks.json")
        self.assertEqual(events["STREAM_EVENTS_PUSH_SERVICE_ACCOUNT"], "push@x")
        self.assertEqual(events["STREAM_EVENTS_TRUSTED_PROXIES"], "1")
        self.assertEqual(alone["urls"], {
            "events": "https://stream-events-123456.europe-west1.run.app",
            "push": "https://stream-events-push-123456.europe-west1.run.app"})
        self.assertEqual(alone["ingress"], {"events": "INGRESS_TRAFFIC_ALL",
                                            "push": "INGRESS_TRAFFIC_INTERNAL_ONLY"})

    def test_behind_the_load_balancer_its_address_is_counted_and_no_other_way_is_open(self):
        behind = self.services(behind_front=True, websockets=True,
                               settings={"STREAM_EVENTS_PUBLISH_AUTH": "jwt"})
        self.assertEqual({key: part["port"] for key, part in behind["parts"].items()},
                         {"events": "h2c", "push": "h2c", "ws": "http1"})
        for key in ("events", "ws"):
            self.assertEqual(behind["settings"][key]["STREAM_EVENTS_TRUSTED_PROXIES"], "2")
            self.assertEqual(behind["settings"][key]["STREAM_EVENTS_PUBLISH_AUTH"], "jwt")
            self.assertEqual(behind["ingress"][key], "INGRESS_TRAFFIC_INTERNAL_LOAD_BALANCER")
        self.assertNotIn("STREAM_EVENTS_PUBLISH_AUTH", behind["settings"]["push"])
        self.assertEqual(behind["ingress"]["push"], "INGRESS_TRAFFIC_INTERNAL_ONLY")


if __name__ == "__main__":
    unittest.main()
