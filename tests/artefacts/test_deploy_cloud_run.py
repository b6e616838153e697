"""The steps of deploy/cloud-run.md, typed as they stand, with a stand-in for gcloud
(deploy_gcloud.py)."""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

import deploy_rules as rules
from deploy_gcloud import excerpt
from deploy_processes import (
    PROJECT, Process, answers, binary, google_sdks, listens, not_checked, until,
)
from ports import free_port

PAGE = PROJECT / "deploy/cloud-run.md"
TREE = "data/cli/gcloud_completions.py"
EDITS_MAX = 6


def blocks(page):
    """The commands of each ```sh, by the title of its section."""
    found = {}
    for section in re.split(r"^## ", page, flags=re.M)[1:]:
        title = section.split("\n", 1)[0]
        found[title] = re.findall(r"^```sh\n(.*?)^```", section, re.M | re.S)
    return found


def commands(text):
    """Each command on one line, without comments."""
    lines = re.sub(r"\\\n\s*", "", re.sub(r"\s+#.*", "", text)).splitlines()
    return [line for line in lines if line.strip()]


def two_services(page):
    return [line for block in blocks(page)["Steps"] for line in commands(block)]


def websockets(page):
    return two_services(page) + [line for block in blocks(page)["WebSockets"]
                                 for line in commands(block)]


def one_service(page):
    """As the section says: steps 1 and 2, the accounts and the topic of step 3, and its own."""
    steps = two_services(page)
    first = [line for line in steps if not re.search(r"redis instances|REDIS_HOST|run |run\.app|"
                                                     r"pubsub subscriptions|PUSH_URL", line)]
    return first + [line for block in blocks(page)["One service, for trials"]
                    for line in commands(block)]


class Steps(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        found = [sdk / TREE for sdk in google_sdks() if (sdk / TREE).exists()]
        if not found or not shutil.which("envsubst"):
            not_checked("Cloud Run's steps, since Google's SDK or envsubst is not installed")
        folder = tempfile.mkdtemp()
        cls.addClassCleanup(shutil.rmtree, folder)
        cls.tree = Path(folder) / "tree"
        cls.tree.write_text(excerpt(found[0]))
        cls.page = PAGE.read_text()

    def type_in(self, lines):
        """What is there afterwards, or what was said against it."""
        folder = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, folder)
        gcloud = folder / "gcloud"
        script = PROJECT / "tests/artefacts/deploy_gcloud.py"
        gcloud.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{script}" "$@"\n')
        gcloud.chmod(0o755)
        mine = {"STATE": str(folder / "state"), "TREE": str(self.tree),
                "PATH": f"{folder}:{os.environ['PATH']}"}
        command = ["bash", "-euo", "pipefail", "-c", "\n".join(lines)]
        options = {"stdin": subprocess.DEVNULL, "capture_output": True, "text": True}
        said = subprocess.run(command, env=mine, cwd=PROJECT, timeout=300, **options)
        if said.returncode:
            return None, said.stderr
        return json.loads((folder / "state").read_text()), ""

    def works(self, lines):
        made, said = self.type_in(lines)
        self.assertEqual(said, "")
        self.assertEqual(list(made["subscription"]), ["orders-to-events"])
        return made

    def redis(self):
        """The port of one, in Memorystore's place."""
        if not shutil.which("redis-server"):
            not_checked("Cloud Run's settings in a gateway, since there is no redis-server")
        port = str(free_port())
        command = ["redis-server", "--port", port, "--save", "", "--bind", "127.0.0.1"]
        Process(self, [*command, "--maxmemory-policy", "noeviction"])
        until("Redis listens", lambda: listens(int(port)))
        return port

    def starts(self, service):
        """The gateway takes these settings, and runs."""
        container = service["spec"]["template"]["spec"]["containers"][0]
        port, ops = free_port(), free_port()
        env = {entry["name"]: entry["value"] for entry in container["env"]}
        log = env["STREAM_EVENTS_BACKPLANE"]
        env["STREAM_EVENTS_BACKPLANE"] = log.replace("6379", self.redis())
        env |= {"PORT": str(port), "STREAM_EVENTS_OPS_LISTEN": f"127.0.0.1:{ops}"}
        gateway = Process(self, [binary(), "serve"], env=env, stderr=subprocess.DEVNULL)
        until("it runs", lambda: answers(ops, "/healthz") or gateway.child.poll() is not None)
        self.assertIsNone(gateway.child.poll(), "it ended: exit code 64 is a wrong setting")
        gateway.end()

    def test_two_services(self):
        lines = two_services(self.page)
        made = self.works(lines)
        self.assertEqual(sorted(made["service"]), ["events", "events-push"])
        for service in made["service"].values():
            self.assertEqual(rules.cloud_run(service), [])
            self.starts(service)
        self.none_is_idle(lines)

    def test_websockets_have_a_service_without_http2(self):
        lines = websockets(self.page)
        made = self.works(lines)
        self.assertEqual(sorted(made["service"]), ["events", "events-push", "events-ws"])
        service = made["service"]["events-ws"]
        self.assertEqual(rules.cloud_run(service), [])
        self.starts(service)
        made = self.works([line.replace("name: http1", "name: h2c") for line in lines])
        self.assertIn("not http1", "".join(rules.cloud_run(made["service"]["events-ws"])))

    def test_one_service(self):
        lines = one_service(self.page)
        made = self.works(lines)
        self.assertEqual(list(made["service"]), ["events"])
        self.assertEqual(rules.cloud_run(made["service"]["events"]), [])
        self.starts(made["service"]["events"])
        longer = [line.replace("AGE_MAX=5 min", "AGE_MAX=55 min") for line in lines]
        made = self.works(longer)
        self.assertIn("hear nothing", "".join(rules.cloud_run(made["service"]["events"])))
        greedy = [line.replace("STREAMS_PER_ADDRESS=90", "STREAMS_PER_ADDRESS=0") for line in lines]
        made = self.works(greedy)
        self.assertIn("a tenth", "".join(rules.cloud_run(made["service"]["events"])))
        for auth in ("READ_AUTH", "PUSH_AUTH"):
            bad = [re.sub(f"STREAM_EVENTS_{auth}=\\w+,", "", line) for line in lines]
            self.assertNotEqual(bad, lines)
            # The gateway says 64, or the stand-in misses what the subscription needs.
            made, said = self.type_in(bad)
            if made:
                with self.assertRaises(AssertionError, msg=auth):
                    self.starts(made["service"]["events"])
            else:
                self.assertIn("PUSH_AUTH", said)

    def none_is_idle(self, lines):
        """Without any one of the commands the steps do not work."""
        for at, line in enumerate(lines):
            if line == "export REDIS_HOST":
                continue
            made, said = self.type_in(lines[:at] + lines[at + 1 :])
            complete = made and "subscription" in made and len(made.get("service", {})) == 2
            self.assertFalse(complete, f"it works without: {line}\n{said}")

    def test_a_wrong_flag_or_name_is_noticed(self):
        text = "\n".join(two_services(self.page))
        for old, new in [
            ("--repository-format", "--repositry-format"),
            ("gcloud redis instances create", "gcloud redis instance create"),
            ("pubsub.googleapis.com", ""),
            ("compute.googleapis.com", ""),
            ('create "$TOPIC"', "create other"),
            ("accounts create pubsub-push", "accounts create push"),
            ("/push/$TOPIC", "/push/other"),
            ("create stream-events --rep", "create images --rep"),
            ("config set project \"$PROJECT\"", "config set project other"),
            ("--role=roles/run.invoker", "--rol=roles/run.invoker"),
        ]:
            self.assertIn(old, text)
            made, said = self.type_in(text.replace(old, new, 1).splitlines())
            self.assertIsNone(made, f"{new}: {said}")

    def test_few_things_have_to_be_edited_all_in_one_place(self):
        first = blocks(self.page)["Steps"][0]
        names = re.findall(r"\b([A-Z_]+)=", first)
        self.assertLessEqual(len(names), EDITS_MAX)
        used = set()
        for path in (PROJECT / "deploy/cloud-run").glob("*.yaml"):
            text = path.read_text()
            self.assertNotIn("EDIT", text, path)
            used |= set(re.findall(r"\$\{(\w+)\}", text))
        exported = "\n".join(line for line in two_services(self.page) if "export" in line)
        for name in used:
            self.assertRegex(exported, rf"\b{name}\b")


if __name__ == "__main__":
    unittest.main()
