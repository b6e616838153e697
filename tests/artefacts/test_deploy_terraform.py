"""deploy/terraform: its modules fit each other, the gateway's settings, and what the documents create
by hand. Each rule is also seen to notice what it is for."""

import copy
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import unittest
from dataclasses import replace
from pathlib import Path

import deploy_terraform as terraform
import deploy_terraform_front as front
import deploy_terraform_modules as modules
import yaml
from deploy_processes import PROJECT, not_checked
from deploy_rules import settings_known
from terraform_schemas import schemas

DEPLOY = PROJECT / "deploy"


def by_hand():
    """All commands of the documents and manifests, one text."""
    paths = [*DEPLOY.rglob("*.md"), *(PROJECT / "docs").rglob("*.md"), *(PROJECT / "k8s").rglob("*.yaml"),
             *(PROJECT / "k8s").rglob("*.sh")]
    text = "\n".join(path.read_text() for path in paths)
    return text.replace("\\\n", " ").replace("=", " ")


def swap(old, new):
    return lambda text: text.replace(old, new)


def in_module(name, old, new):
    return lambda folders: replace(
        folders, modules=folders.modules | {name: folders.modules[name].replace(old, new)})


def in_root(old, new):
    return lambda folders: replace(folders, root=folders.root.replace(old, new))


class Rules(unittest.TestCase):
    def setUp(self):
        self.folders = terraform.Folders.read()

    def holds(self, rule, of, **broken):
        """The rule finds nothing, and finds what each of these changes breaks."""
        self.assertEqual(rule(of), [])
        for name, change in broken.items():
            other = change(copy.deepcopy(of))
            self.assertNotEqual(other, of, f"{name} changes nothing")
            self.assertNotEqual(rule(other), [], f"{name} is not noticed")

    def test_names_are_declared_and_used(self):
        self.holds(
            terraform.consistent,
            self.folders.modules["pubsub"],
            undeclared=swap("local.pubsub", "local.pubsubs"),
            unused=swap("var.message_ordering", "false"),
            resource=swap("google_pubsub_topic.dead_letters.id", "google_pubsub_topic.dead.id"),
        )
        self.holds(
            terraform.consistent,
            self.folders.root,
            module=swap("module.pubsub.push_account", "module.pub_sub.push_account"),
            unused=swap("var.websockets", "false"),
            data=swap("data.google_project.this", "data.google_project.that"),
        )
        for name in ("alerts", "cloud-run", "front"):
            self.holds(terraform.consistent, self.folders.modules[name],
                       undeclared=swap("var.project", "var.projects"))

    def test_the_root_and_its_modules_fit(self):
        self.holds(
            modules.modules_fit,
            self.folders,
            unknown=in_root("websockets      =", "web_sockets     ="),
            missing=in_root("  read_issuer     = var.read_issuer\n", ""),
            renamed=in_module("front", 'variable "domain"', 'variable "host"'),
            output=in_module("cloud-run", 'output "push_endpoint"', 'output "endpoint"'),
            value=in_root("module.pubsub.push_account", "module.pubsub.push"),
            unused=in_root("./modules/alerts", "./modules/pubsub"),
        )

    def test_modules_can_be_used_several_times(self):
        self.holds(
            modules.reusable,
            self.folders,
            provider=in_module("front", "locals {", 'provider "google" {\n}\nlocals {'),
            project=in_module("alerts", "  project = var.project\n", ""),
            fixed=in_module("pubsub", '"${var.name}-dead-letters"', '"dead-letters"'),
            account=in_module("pubsub", "= var.push_account", '= "pubsub-push"'),
            off=in_module("cloud-run", "disable_on_destroy = false", "disable_on_destroy = true"),
            lookup=in_module("pubsub", "locals {", 'data "google_project" "this" {\n}\nlocals {'),
        )

    def test_no_name_is_one_that_the_documents_create_by_hand(self):
        hand = by_hand()
        self.holds(
            lambda folders: modules.collisions(folders, hand),
            self.folders,
            push=in_root('"${var.name}-push"', '"pubsub-push"'),
            gateway=in_root('"${var.name}-gateway"', "var.name"),
            subscription=in_module("pubsub", "-to-${var.name}", "-to-events"),
            redis=in_root('= "stream-events"', '= "events"'),
            front=in_root('"${var.name}-front"', "var.name"),
            ssl=in_module("front", 'ssl_policy" "this" {\n  project         = var.project\n'
                          "  name            = var.name", 'ssl_policy" "this" {\n'
                          '  project         = var.project\n  name            = "stream-events"'),
        )

    def test_services_are_on_before_they_are_used(self):
        self.holds(
            modules.services_first,
            self.folders.modules["pubsub"],
            identity=swap("google_project_service_identity", "google_project_service_account"),
            topic=swap("  name       = each.value\n  depends_on = [google_project_service.this]",
                       "  name       = each.value"),
            early=swap("  depends_on   = [google_project_service_identity.pubsub]\n", ""),
        )

    def test_roles(self):
        self.holds(
            terraform.least_privilege,
            "\n".join(self.folders.modules.values()),
            role=swap("roles/pubsub.publisher", "roles/pubsub.editor"),
            project=swap("google_service_account_iam_member", "google_project_iam_member"),
            account=swap("google_service_account.push.name", "google_service_account.gateway.name"),
            puller=swap("google_service_account.gateway.member", "google_service_account.push.member"),
            caller=swap("serviceAccount:${var.push_account}", "allUsers"),
            called=swap('this["push"].name', 'this["events"].name'),
        )

    def test_subscriptions(self):
        self.holds(
            terraform.numbers,
            self.folders.modules["pubsub"],
            deadline=swap("ack_deadline_seconds       = 10", "ack_deadline_seconds       = 8"),
            attempts=swap("max_delivery_attempts = 100", "max_delivery_attempts = 5"),
            expires=swap('ttl = ""', 'ttl = "2678400s"'),
            token=swap("oidc_token", "no_token"),
        )

    def test_front(self):
        text = self.folders.modules["front"]
        self.holds(
            front.paths,
            text,
            missing=swap('"/ticket",', ""),
            short=swap('"/presence/*"', '"/presence"'),
            push=swap('["/push", "/push/*"]', '["/push"]'),
            other=swap('"/renew",', '"/renew",\n      "/metrics",'),
            all=swap('["/ws"]', '["/ws", "/*"]'),
            socket=swap('"/events",', '"/events",\n      "/ws/*",'),
            default=swap("http_status = 404", "http_status = 200"),
        )
        self.holds(
            front.armor,
            text,
            few=swap("count        = 12000", "count        = 6000"),
            differs=swap("count        = 12000", "count        = 24000"),
            late=swap("priority = 1000", "priority = 3000"),
            push=swap("startsWith('/push/')", "startsWith('/p/')"),
            shared=swap('enforce_on_key = "IP"', 'enforce_on_key = "ALL"'),
            lets=swap("deny(429)", "deny(403)"),
            unlimited=swap('"throttle"', '"allow"'),
            last=swap("2147483647", "2147483646"),
        )
        self.holds(
            front.load_balancer,
            text,
            timeout=swap("security_policy       =", "timeout_sec = 3600\n  security_policy       ="),
            bare=swap("security_policy       = google_compute_security_policy.this.id", ""),
            classic=swap('"EXTERNAL_MANAGED"', '"EXTERNAL"'),
            tls=swap('"TLS_1_2"', '"TLS_1_0"'),
            default=swap("ssl_policy       =", "# ssl_policy ="),
            clear=swap("PERMANENT_REDIRECT", "MOVED_PERMANENTLY_DEFAULT"),
        )


class Terraform(unittest.TestCase):
    """What terraform itself says, without Google's provider as far as it goes."""

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
        # The endpoint, before the service exists.
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
        self.assertEqual(len([address for address in every if "google_monitoring_alert_policy" in address]),
                         len(alerts["spec"]["groups"][0]["rules"]))

    def test_the_readmes_for_each(self):
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
        # deploy/cloud-run.md names its services so, and one events-ws.
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
