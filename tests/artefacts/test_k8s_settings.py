"""The settings: a changed one replaces the pods, few have to be edited, and the texts agree."""

import copy
import re
import unittest

import manifests
from test_k8s_rules import RULES

README = manifests.K8S / "README.md"
SETTINGS = {"name": "stream-events", "behavior": "merge"}


def edits(directory):
    """The lines of a directory's files that have to be edited."""
    return [line for path in sorted((manifests.K8S / directory).iterdir()) if path.is_file()
            for line in path.read_text().splitlines() if re.match(r" *# EDIT\b", line)]


def own_overlays(text):
    """The kustomizations that a page shows, without the place that they are fetched from."""
    blocks = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    shown = [manifests.yaml.safe_load(block) for block in blocks]
    for own in shown:
        for key in ("resources", "components"):
            own[key] = [path.removeprefix("../") for path in own.get(key, [])]
    return shown


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

    def test_the_readmes_own_overlay_renders_with_all_that_it_sets(self):
        shown = own_overlays(README.read_text())
        self.assertGreater(len(shown), 0)
        for own in shown:
            docs = manifests.render_own(copy.deepcopy(own))
            texts = manifests.settings(docs)
            literals = [literal for generator in own["configMapGenerator"]
                        for literal in generator["literals"]]
            for literal in literals:
                name, value = literal.split("=", 1)
                self.assertEqual(texts[name], value)
            # Everything that a pod cannot do without, and nothing that is still to be edited.
            self.assertNotIn("EDIT", texts.values())
            self.assertNotIn("my-project", texts["STREAM_EVENTS_PUSH_SERVICE_ACCOUNT"])
            image = manifests.pod(docs)["containers"][0]["image"]
            self.assertTrue(image.startswith(own["images"][0]["newName"]), image)
            hosts = {host for route in manifests.all_of(docs, "HTTPRoute")
                     for host in route["spec"]["hostnames"]}
            self.assertNotIn("events.example.com", hosts)
            # With a URL instead of the placeholder, which that rule wants.
            manifests.one(docs, "ConfigMap")["data"]["STREAM_EVENTS_READ_JWKS_URL"] = "EDIT"
            for rule in RULES:
                self.assertEqual(list(rule(docs)), [], rule.__name__)


if __name__ == "__main__":
    unittest.main()
