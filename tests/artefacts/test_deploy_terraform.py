"""deploy/terraform: its modules fit each other, the gateway's settings, and what the documents create
by hand. Each rule is also seen to notice what it is for."""

import copy
import unittest
from dataclasses import replace

import deploy_terraform as terraform
import deploy_terraform_front as front
import deploy_terraform_modules as modules
from deploy_processes import PROJECT

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


if __name__ == "__main__":
    unittest.main()
