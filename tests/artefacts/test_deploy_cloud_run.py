"""deploy/cloud-run/deploy, as it stands, with a stand-in for gcloud (deploy_gcloud.py); and the page
about it, docs/deploy/cloud-run.md."""

import copy
import http.client
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import unittest
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import deploy_rules as rules
from deploy_gcloud import excerpt, parse
from deploy_processes import (
    PATIENCE, PROJECT, Process, answers, binary, google_sdks, listens, not_checked, until,
)
from ports import free_port

SCRIPT = PROJECT / "deploy/cloud-run/deploy"
PAGE = PROJECT / "docs/deploy/cloud-run.md"
TREE = "data/cli/gcloud_completions.py"
VARIABLES = {"PROJECT": "my-project", "REGION": "europe-west1", "TOPIC": "orders"}
READERS = {"READ_ISSUER": "https://issuer.example.com", "READ_AUDIENCE": "https://events.example.com"}
MODES = {"trial": VARIABLES, "full": VARIABLES | READERS, "websockets": VARIABLES | READERS}
SERVICES = {"trial": ["events-trial"], "full": ["events", "events-push"],
            "websockets": ["events", "events-push", "events-ws"]}
VARIABLES_MAX = 5


class Run:
    """A run of the script: what it said, and what is there afterwards."""

    def __init__(self, said, state):
        self.code, self.out, self.err = said.returncode, said.stdout, said.stderr
        calls = state.with_name("state.calls")
        self.made = json.loads(state.read_text()) if state.exists() else {}
        self.calls = calls.read_text().splitlines() if calls.exists() else []
        calls.unlink(missing_ok=True)


def body(text, function):
    """The lines of a function of the script."""
    return re.search(rf"^{function}\(\) \{{\n(.*?)^\}}", text, re.M | re.S)[1]


class Deploy(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        found = [sdk / TREE for sdk in google_sdks() if (sdk / TREE).exists()]
        if not found or not shutil.which("envsubst") or not shutil.which("openssl"):
            not_checked("Cloud Run's script, since Google's SDK, envsubst or openssl is not installed")
        folder = tempfile.mkdtemp()
        cls.addClassCleanup(shutil.rmtree, folder)
        cls.bin = Path(folder) / "bin"
        cls.bin.mkdir()
        cls.tree = Path(folder) / "tree"
        cls.tree.write_text(excerpt(found[0]))
        stand_in = PROJECT / "tests/artefacts/deploy_gcloud.py"
        for name, line in {"gcloud": f'exec "{sys.executable}" "{stand_in}" "$@"', "sleep": ":"}.items():
            (cls.bin / name).write_text(f"#!/bin/sh\n{line}\n")
            (cls.bin / name).chmod(0o755)
        cls.text = SCRIPT.read_text()

    def state(self):
        folder = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, folder)
        return folder / "state"

    def deploy(self, mode, text=None, state=None, script=SCRIPT, **other):
        """Runs the script, or a changed text of it."""
        state = state or self.state()
        env = {"STATE": str(state), "TREE": str(self.tree), "PATH": f"{self.bin}:{os.environ['PATH']}"}
        env |= MODES.get(mode, VARIABLES) | other
        start = ["bash", "-c", text, script] if text else [script]
        options = {"stdin": subprocess.DEVNULL, "capture_output": True, "text": True}
        said = subprocess.run([*start, mode], env=env, cwd=PROJECT, timeout=300, **options)
        return Run(said, state)

    def works(self, mode, **other):
        run = self.deploy(mode, **other)
        self.assertEqual((run.code, run.err), (0, ""), run.out)
        self.assertEqual(sorted(run.made["service"]), SERVICES[mode])
        self.assertEqual(len(run.made["subscription"]), 1)
        return run

    def refused(self, why, mode, text=None, **other):
        run = self.deploy(mode, text, **other)
        self.assertNotEqual(run.code, 0, f"it works: {why}\n{run.out}")
        return run

    def redis(self):
        """The port of one, in Memorystore's place."""
        if not shutil.which("redis-server"):
            not_checked("Cloud Run's settings in a gateway, since there is no redis-server")
        port = str(free_port())
        command = ["redis-server", "--port", port, "--save", "", "--bind", "127.0.0.1"]
        Process(self, [*command, "--maxmemory-policy", "noeviction"])
        until("Redis listens", lambda: listens(int(port)))
        return port

    def starts(self, service, **other):
        """The gateway takes these settings, and runs. Its port."""
        container = service["spec"]["template"]["spec"]["containers"][0]
        port, ops = free_port(), free_port()
        env = {entry["name"]: entry["value"] for entry in container["env"]}
        log = env["STREAM_EVENTS_BACKPLANE"]
        if log.startswith("redis"):
            env["STREAM_EVENTS_BACKPLANE"] = log.replace("6379", self.redis())
        env |= {"PORT": str(port), "STREAM_EVENTS_OPS_LISTEN": f"127.0.0.1:{ops}"} | other
        gateway = Process(self, [binary(), "serve"], env=env, stderr=subprocess.DEVNULL)
        until("it runs", lambda: answers(ops, "/healthz") or gateway.child.poll() is not None)
        self.assertIsNone(gateway.child.poll(), "it ended: exit code 64 is a wrong setting")
        return port

    def test_services_have_settings_that_the_gateway_takes(self):
        made = self.works("websockets").made["service"]
        for name, service in made.items():
            self.assertEqual(rules.cloud_run(service), [], name)
            self.starts(service)
        made["events-ws"]["spec"]["template"]["spec"]["containers"][0]["ports"][0]["name"] = "h2c"
        self.assertIn("not http1", "".join(rules.cloud_run(made["events-ws"])))

    def test_the_trial_prints_a_token_that_its_gateway_takes(self):
        run = self.works("trial")
        service = run.made["service"]["events-trial"]
        self.assertEqual(rules.cloud_run(service), [])
        spec = service["spec"]["template"]["spec"]
        mount, volume = spec["containers"][0]["volumeMounts"][0], spec["volumes"][0]
        self.assertEqual(mount["name"], volume["name"])
        there = f"{mount['mountPath']}/{volume['secret']['items'][0]['path']}"
        env = {entry["name"]: entry["value"] for entry in spec["containers"][0]["env"]}
        self.assertEqual(env["STREAM_EVENTS_READ_KEY_FILE"], there)
        key = self.state().with_name("key")
        key.write_text(run.made["secrets"]["events-trial-key"])
        port = self.starts(service, STREAM_EVENTS_READ_KEY_FILE=str(key))
        pattern = r'curl -N -H "Authorization: Bearer (\S+)" "https://events-trial\.run\.app(/events\S+)"'
        token, path = re.search(pattern, run.out).groups()
        for target, header, status in [
            (path, token, 200), (path, token[:-3] + "AAA", 401), ("/events?topic=other", token, 403),
        ]:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
            self.addCleanup(connection.close)
            connection.request("GET", target, headers={"Authorization": f"Bearer {header}"})
            answer = connection.getresponse()
            self.assertEqual(answer.status, status, target)
            if status == 200:
                first = b"".join(iter(answer.readline, b"\n"))
                self.assertIn(b"event: stream-open", first)

    def test_without_a_choice_of_auth_the_gateway_does_not_start(self):
        service = self.works("trial").made["service"]["events-trial"]
        for auth in ("READ_AUTH", "PUSH_AUTH"):
            bad = copy.deepcopy(service)
            container = bad["spec"]["template"]["spec"]["containers"][0]
            left = [entry for entry in container["env"] if not entry["name"].endswith(f"_{auth}")]
            self.assertEqual(len(left), len(container["env"]) - 1)
            container["env"] = left
            with self.assertRaises(AssertionError, msg=auth):
                self.starts(bad)

    def test_a_second_run_changes_nothing(self):
        for mode in ("trial", "websockets"):
            state = self.state()
            first = self.works(mode, state=state)
            second = self.works(mode, state=state)
            self.assertEqual(second.made, first.made)
            again = [call for call in second.calls if re.search(r" create$|builds submit", call)]
            self.assertEqual(again, [], mode)
            self.assertNotIn(": made", second.out)
            self.assertEqual(first.out.count(": made"), second.out.count(": already there"))

    def test_a_run_after_an_error_does_the_rest(self):
        whole = self.works("full")
        for step in ("builds submit", "redis instances create", "run services replace"):
            state = self.state()
            failed = self.refused(step, "full", state=state, FAIL=str(whole.calls.index(step)))
            self.assertIn(f"gcloud: failed: {step}", failed.err)
            self.assertEqual(failed.calls[-1], step)
            self.assertNotIn("curl", failed.out)
            self.assertEqual(self.deploy("full", state=state).made, whole.made)

    def test_a_new_account_may_take_a_while_to_be_known(self):
        whole = self.works("trial")
        number = whole.calls.index("secrets add-iam-policy-binding")
        again = self.deploy("trial", FAIL=str(number))
        self.assertEqual(again.code, 0, again.err)
        self.assertEqual(len(again.calls), len(whole.calls) + 1)

    def test_a_changed_source_is_built_and_deployed(self):
        tree, state = self.state().with_name("tree"), self.state()
        shutil.copytree(SCRIPT.parent, tree / "deploy/cloud-run")
        ignored = (PROJECT / ".dockerignore").read_text()
        for name in ["Dockerfile", ".dockerignore", *re.findall(r"^!(.+)", ignored, re.M)]:
            copy_of = shutil.copytree if (PROJECT / name).is_dir() else shutil.copy
            (tree / name).parent.mkdir(exist_ok=True)
            copy_of(PROJECT / name, tree / name)
        there = tree / "deploy/cloud-run/deploy"
        first = self.works("trial", state=state, script=there)
        with (tree / "src/main.rs").open("a") as file:
            file.write("// changed")
        second = self.works("trial", state=state, script=there)
        self.assertIn("builds submit", second.calls)
        image = [run.made["service"]["events-trial"]["spec"]["template"]["spec"]["containers"][0]["image"]
                 for run in (first, second)]
        self.assertNotEqual(*image)

    def test_a_subscription_that_pushes_elsewhere_is_updated(self):
        state = self.state()
        made = self.works("trial", state=state).made
        other = copy.deepcopy(made)
        other["subscription"]["orders-to-events-trial"]["--push-endpoint"] = "https://old.run.app/push"
        state.write_text(json.dumps(other))
        self.assertEqual(self.works("trial", state=state).made, made)

    def test_no_step_can_be_left_out(self):
        """The script ends with an error if any one command that makes something does nothing."""
        for mode in ("trial", "websockets"):
            calls = self.works(mode).calls
            makes = r"enable|create|submit|binding|replace"
            steps = [at for at, call in enumerate(calls) if re.search(makes, call.split()[-1])]
            self.assertGreaterEqual(len(steps), 10)
            with ThreadPoolExecutor(2) as pool:
                runs = list(pool.map(lambda at: self.deploy(mode, SKIP=str(at)), steps))
            for at, run in zip(steps, runs):
                self.assertNotEqual(run.code, 0, f"{mode} works without: {calls[at]}\n{run.out}")

    def test_steps_in_another_order_are_refused(self):
        for function, last in [("trial", "enable"), ("trial", "accounts"), ("trial", "topic"),
                           ("trial", "image"), ("trial", "read_key"), ("trial", "start events-trial"),
                           ("full", "redis"), ("full", "image"), ("pushes", "start events-push")]:
            steps = body(self.text, function)
            line = re.search(rf"^    {last}\b.*\n", steps, re.M)[0]
            moved = self.text.replace(steps, steps.replace(line, "") + line, 1)
            self.assertNotEqual(moved, self.text)
            mode = "trial" if function == "trial" else "full"
            run = self.refused(f"{function}: {last} at the end", mode, moved)
            self.assertIn("gcloud: ", run.err)

    def test_a_wrong_flag_or_name_is_noticed(self):
        for mode, old, new in [
            ("trial", "--repository-format", "--repositry-format"),
            ("trial", "enable compute iam", "enable iam"),
            ("trial", "cloudbuild pubsub", "cloudbuild"),
            ("trial", "run secretmanager", "run"),
            ("trial", 'topics create "$TOPIC"', "topics create other"),
            ("trial", "accounts create pubsub-push", "accounts create push"),
            ("trial", "/push/$TOPIC", "/push/other"),
            ("trial", "create stream-events --rep", "create images --rep"),
            ("trial", "CORE_PROJECT=$PROJECT", "CORE_PROJECT=other"),
            ("trial", "audience=stream-events", "audience=other"),
            ("trial", '"serviceAccount:$RUN_ACCOUNT"', '"serviceAccount:$PUSH_ACCOUNT"'),
            ("full", "redis instances create", "redis instance create"),
            ("full", "--role=roles/run.invoker", "--rol=roles/run.invoker"),
            ("full", "export REDIS_HOST", ":"),
        ]:
            self.assertIn(old, self.text)
            self.refused(new, mode, self.text.replace(old, new, 1))

    def test_variables_and_tools_are_checked_first(self):
        nothing = dict.fromkeys(MODES["full"], "")
        for mode, other, said in [
            ("trial", nothing, "variables are missing: PROJECT REGION TOPIC ("),
            ("full", nothing, "variables are missing: PROJECT REGION TOPIC READ_ISSUER READ_AUDIENCE ("),
            ("trial", {"PROJECT": "1234567"}, "PROJECT is not the id of a project: 1234567"),
            ("trial", {"REGION": "europe"}, "REGION is not a region"),
            ("trial", {"TOPIC": "projects/p/topics/orders"}, "TOPIC has to begin with a letter"),
            ("full", {"READ_ISSUER": "issuer.example.com"}, "READ_JWKS_URL does not begin with https"),
            ("trial", {"PROJECT": "other-project"}, "gcloud cannot see the project other-project"),
        ]:
            run = self.refused(said, mode, **other)
            self.assertIn(said, run.err)
            self.assertEqual(run.made, {})
        bare = self.state().with_name("bin")
        bare.mkdir()
        for name in ("bash", "env", "dirname", "gcloud"):
            (bare / name).symlink_to(shutil.which(name, path=f"{self.bin}:{os.environ['PATH']}"))
        self.assertIn("envsubst is not installed", self.refused("bare", "trial", PATH=str(bare)).err)

    def test_the_help_names_the_few_variables(self):
        run = self.deploy("--help")
        self.assertEqual(run.code, 0)
        self.assertEqual(self.deploy("no-such-mode").code, 2)
        variables = re.findall(r"^  ([A-Z_]+) +(.*)$", run.out, re.M)
        needed = [name for name, said in variables if "Default:" not in said]
        self.assertEqual(needed, list(MODES["full"]))
        self.assertLessEqual(len(needed), VARIABLES_MAX)
        for name in SERVICES:
            self.assertIn(f"deploy/cloud-run/deploy {name} ", run.out)
        for path in SCRIPT.parent.glob("*.yaml"):
            self.assertNotIn("EDIT", path.read_text(), path)
            for name in re.findall(r"\$\{(\w+)\}", path.read_text()):
                self.assertRegex(self.text, rf"\bexport\b.*\b{name}\b")

    def test_gcloud_has_the_commands_of_the_page(self):
        tree = json.loads(self.tree.read_text())
        text = re.sub(r"\\\n\s*", "", PAGE.read_text())
        commands = re.findall(r"^(?:\w+=\$\()?(gcloud (?:'[^']*'|[^#\n)|])*)", text, re.M)
        self.assertGreater(len(commands), 5)
        for command in commands:
            parse(tree, shlex.split(command)[1:])
        with self.assertRaises(SystemExit):
            parse(tree, ["pubsub", "topics", "create", "--wrong"])


if __name__ == "__main__":
    unittest.main()
