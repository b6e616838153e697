"""docs/pull.md: its steps on a laptop work, and its overlay is what the rules want."""

import contextlib
import copy
import os
import re
import shutil
import signal
import subprocess
import unittest

import gateway
import manifests
from deploy_processes import google_sdks
from ports import free_port
from pull_processes import CAN_PULL, NO_PULL, until
from test_k8s_rules import RULES

PAGE = (manifests.ROOT / "docs/pull.md").read_text()
HAS_EMULATOR = shutil.which("gcloud") and any(
    list(sdk.glob("platform/pubsub-emulator/lib/*-all.jar")) for sdk in google_sdks())
PROGRAM = "cargo run --release --features pull --"


def steps(section):
    """The commands of a section, one text for each step."""
    text = PAGE.split(f"\n## {section}\n", 1)[1].split("\n## ", 1)[0]
    return re.findall(r"```sh\n(.*?)```", text, re.DOTALL)


@unittest.skipUnless(CAN_PULL, NO_PULL)
@unittest.skipUnless(HAS_EMULATOR, "the steps of docs/pull.md, since the Pub/Sub emulator is not installed")
class Laptop(unittest.TestCase):
    def setUp(self):
        self.stack = self.enterContext(contextlib.ExitStack())
        self.emulator, self.port = free_port(), free_port()

    def command(self, text):
        """A step as it is, but for ports that may be taken, and a program that is built already."""
        for old, new in ((":8085", f":{self.emulator}"), (":8080", f":{self.port}"),
                         (PROGRAM, str(gateway.BINARY)), (" dev ", f" dev --port {self.port} ")):
            text = text.replace(old, new)
        return ["bash", "-euc", text]

    def run_step(self, text):
        return subprocess.run(self.command(text), check=True, capture_output=True, text=True, timeout=60).stdout

    def start_step(self, text):
        process = subprocess.Popen(self.command(text), text=True, stdout=subprocess.PIPE,
                                   stderr=subprocess.STDOUT, start_new_session=True)

        def end():
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            process.stdout.close()
        self.stack.callback(end)
        return iter(process.stdout.readline, "")

    def test_the_steps_on_a_laptop_show_an_event(self):
        emulator, subscription, dev, reader, publish = steps("On a laptop, with the emulator")
        self.assertIn(PROGRAM, dev)
        self.assertTrue(any("Server started" in line for line in self.start_step(emulator)))
        self.assertIn("projects/local/subscriptions/orders-pull", self.run_step(subscription))
        said = self.start_step(dev)
        self.assertTrue(any(str(self.port) in line for line in said))
        until("the gateway listens", lambda: gateway._listens(self.port))
        lines = self.start_step(reader)
        self.assertTrue(any("stream-open" in line for line in lines))
        self.run_step(publish)
        self.assertTrue(any(line == "data: hello\n" for line in lines))


@unittest.skipUnless(manifests.TOOL, manifests.NO_TOOL)
class Overlay(unittest.TestCase):
    def test_the_overlay_of_the_page_keeps_every_rule(self):
        (block,) = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
        own = manifests.yaml.safe_load(block)
        own["resources"] = [path.removeprefix("../") for path in own["resources"]]
        docs = manifests.render_own(copy.deepcopy(own))
        self.assertIn("projects/shop/", manifests.settings(docs)["STREAM_EVENTS_PULL"])
        self.assertNotIn("my-project", str(manifests.one(docs, "ServiceAccount")))
        for rule in RULES:
            self.assertEqual(list(rule(docs)), [], rule.__name__)


if __name__ == "__main__":
    unittest.main()
