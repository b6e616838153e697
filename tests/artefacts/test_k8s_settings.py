"""The settings: a changed one replaces the pods, few have to be edited, and the texts agree."""

import re
import shutil
import tempfile
import unittest
from pathlib import Path

import manifests
import schemas
from test_k8s_rules import RULES

README = manifests.K8S / "README.md"
EXAMPLE = manifests.K8S / "example/kustomization.yaml"
SETTINGS = {"name": "stream-events", "behavior": "merge"}


def edits(directory):
    """The lines of a directory's files that have to be edited."""
    return [line for path in sorted((manifests.K8S / directory).iterdir()) if path.is_file()
            for line in path.read_text().splitlines() if re.match(r" *# EDIT\b", line)]


REMOTE = "https://github.com/OWNER/stream-events//"


def remote_paths(text):
    """The places in this project that a text names by URL."""
    return re.findall(rf"{REMOTE}([a-z0-9/-]+)\?ref=v0\.1\.0", text)


class Settings(unittest.TestCase):
    def test_the_table_of_flags_is_read_whole(self):
        flags = re.findall(r"\bflag\(", manifests.flag_table())
        self.assertEqual(len(manifests.flag_defaults()), len(flags))

    def test_few_things_have_to_be_edited_and_the_texts_say_how_many(self):
        self.assertEqual(len(edits("base")), 3, edits("base"))
        self.assertEqual(len(edits("components/public")), 3, edits("components/public"))
        # The image is one of the base's three.
        project = " ".join((manifests.ROOT / "docs/operations.md").read_text().split())
        for said in ("the image and the two lines marked `EDIT` in `k8s/base`",
                     "the three lines marked `EDIT` in `k8s/components/public`"):
            self.assertTrue(said in project, f"docs/operations.md does not say: {said}")
        rows = re.findall(r"^\| `([a-z/.]+)` \| (\d) \|", README.read_text(), re.MULTILINE)
        self.assertEqual(len(rows), 4, rows)
        for path, number in rows:
            text = (manifests.K8S / path).read_text()
            self.assertEqual(len(re.findall(r"^ *# EDIT\b", text, re.MULTILINE)), int(number), path)

    def test_a_place_for_each_directory_in_the_readme(self):
        text = README.read_text()
        for path in [*(manifests.K8S / "overlays").iterdir(),
                     *(manifests.K8S / "components").iterdir()]:
            with self.subTest(path=path.name):
                self.assertIn(f"({path.relative_to(manifests.K8S)})", text)


@unittest.skipUnless(manifests.TOOL, manifests.NO_TOOL)
class Changed(unittest.TestCase):
    def template(self, generator):
        docs = manifests.render_own({"resources": ["k8s"], "configMapGenerator": [generator]})
        return manifests.at(manifests.one(docs, "Deployment"), "spec", "template")

    def test_a_changed_setting_changes_the_pods(self):
        before = manifests.at(manifests.one(manifests.variant("base"), "Deployment"), "spec",
                              "template")
        # The same value is no change: an apply without one must replace nothing.
        same = SETTINGS | {"literals": ["STREAM_EVENTS_DRAIN_TIMEOUT=20 s"]}
        self.assertEqual(self.template(same), before)
        changed = SETTINGS | {"literals": ["STREAM_EVENTS_DRAIN_TIMEOUT=19 s"]}
        self.assertNotEqual(self.template(changed), before)

    def test_without_the_hash_a_change_would_be_noticed_by_nobody(self):
        plain = {"options": {"disableNameSuffixHash": True}}
        docs = [self.template(SETTINGS | plain | {"literals": [f"STREAM_EVENTS_DRAIN_TIMEOUT={seconds} s"]})
                for seconds in (19, 20)]
        self.assertEqual(*docs)

    def test_the_example_sets_all_that_has_to_be_edited_and_keeps_every_rule(self):
        own = manifests.yaml.safe_load(EXAMPLE.read_text())
        docs = manifests.render(EXAMPLE.parent)
        texts = manifests.settings(docs)
        literals = [literal for generator in own["configMapGenerator"]
                    for literal in generator["literals"]]
        self.assertGreater(len(literals), 0)
        for literal in literals:
            name, value = literal.split("=", 1)
            self.assertEqual(texts[name], value)
        # Everything that a pod cannot do without, and nothing that is still to be edited.
        rendered = manifests.yaml.safe_dump(docs)
        left = [text for text in ("EDIT", "my-project", "example.com") if text in rendered]
        self.assertEqual(left, [])
        image = manifests.pod(docs)["containers"][0]["image"]
        self.assertTrue(image.startswith(own["images"][0]["newName"]), image)
        self.assertEqual({manifests.at(doc, "metadata", "namespace") for doc in docs},
                         {own["namespace"]})
        self.assertEqual(schemas.problems(docs), [])
        # With the placeholder instead of the URL, which one rule wants.
        manifests.one(docs, "ConfigMap")["data"]["STREAM_EVENTS_READ_JWKS_URL"] = "EDIT"
        for rule in RULES:
            self.assertEqual(list(rule(docs)), [], rule.__name__)

    def test_the_canary_has_its_own_image_whatever_the_base_has(self):
        with tempfile.TemporaryDirectory() as directory:
            copied = Path(shutil.copytree(manifests.K8S, Path(directory, "k8s")))
            for path, old, new in (
                    ("base", "newName: stream-events", "newName: registry.example.com/events"),
                    ("overlays/istio-canary/canary", "0.1.0", "0.2.0")):
                file = copied / path / "kustomization.yaml"
                text = file.read_text()
                self.assertEqual(text.count(old), 1, path)
                file.write_text(text.replace(old, new))
            docs = manifests.render(copied / "overlays/istio-canary")
        images = {doc["metadata"]["name"]: manifests.at(doc, "spec", "template", "spec", "containers", 0, "image")
                  for doc in manifests.all_of(docs, "Deployment")}
        self.assertEqual(images, {"stream-events": "registry.example.com/events:0.1.0",
                                  "stream-events-canary": "stream-events:0.2.0"})

    def test_the_remote_form_of_the_example_names_the_same_places(self):
        own = manifests.yaml.safe_load(EXAMPLE.read_text())
        local = [str((EXAMPLE.parent / path).resolve().relative_to(manifests.ROOT))
                 for path in own["resources"] + own["components"]]
        self.assertEqual(remote_paths(EXAMPLE.read_text()), local)
        self.assertEqual(remote_paths(README.read_text()), local)
        for page in (manifests.ROOT / "docs").rglob("*.md"):
            for path in remote_paths(page.read_text()):
                self.assertTrue((manifests.ROOT / path / "kustomization.yaml").exists(), path)


if __name__ == "__main__":
    unittest.main()
