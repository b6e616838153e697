"""deploy/local/compose.yaml: our rules, each seen to notice what it is for, and compose itself."""

import copy
import re
import shutil
import subprocess
import tempfile
import unittest

from deploy_compose import compose
from deploy_processes import PROJECT, not_checked
from test_deploy import load

FILE = PROJECT / "deploy/local/compose.yaml"


def run(command):
    return subprocess.run(command, capture_output=True, text=True)


class Compose(unittest.TestCase):
    def test_every_rule_holds_and_can_fail(self):
        config = load("local/compose.yaml")
        self.assertEqual(compose(config), [])

        def gateway(services, **settings):
            services["gateway-a"]["environment"] |= settings

        changes = {
            "a port for all": lambda s: s["nginx"].update(ports=["8080:8080"]),
            "share a log": lambda s: gateway(s, STREAM_EVENTS_BACKPLANE="local"),
            "no setting": lambda s: gateway(s, STREAM_EVENTS_PUSH_AUHT="none"),
            "while it drains": lambda s: s["gateway-a"].update(stop_grace_period="5s"),
            "more than it must": lambda s: s["gateway-a"].update(read_only=False),
            "refuses this Redis": lambda s: s["redis"].update(command="valkey-server"),
            "on a fresh machine": lambda s: s["gateway-b"].update(build=s["gateway-a"]["build"]),
            "does not wait": lambda s: s["gateway-b"]["depends_on"].pop("gateway-a"),
            "in no registry": lambda s: s["gateway-b"].pop("pull_policy"),
            "no tag and digest": lambda s: s["nginx"].update(image="nginx:1.28-alpine"),
            "in k8s/": lambda s: s["redis"].update(image=re.sub(":8.1", ":9", s["redis"]["image"])),
        }
        for told, change in changes.items():
            other = copy.deepcopy(config)
            change(other["services"])
            self.assertIn(told, "".join(compose(other)))

    def test_compose_reads_it(self):
        ways = [["docker", "compose"], ["docker-compose"]]
        ways = [way for way in ways if shutil.which(way[0])]
        ways = [way for way in ways if run([*way, "version"]).returncode == 0]
        if not ways:
            not_checked("compose.yaml's fields, since there is no docker compose")
        said = run([*ways[0], "-f", FILE, "config", "-q"])
        self.assertEqual(said.returncode, 0, said.stderr)
        broken = FILE.read_text().replace("read_only:", "readonly:")
        with tempfile.NamedTemporaryFile("w", suffix=".yaml") as other:
            other.write(broken)
            other.flush()
            self.assertNotEqual(run([*ways[0], "-f", other.name, "config", "-q"]).returncode, 0)


if __name__ == "__main__":
    unittest.main()
