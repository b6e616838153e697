"""configmap.yaml has every setting: what is set, and the rest with the defaults of the source."""

import re
import unittest

import manifests

TEXT = (manifests.K8S / "base/configmap.yaml").read_text()
# Only from the environment, and never in a ConfigMap.
SECRET = "STREAM_EVENTS_REDIS_PASSWORD"


class Settings(unittest.TestCase):
    def test_the_table_of_flags_is_read_whole(self):
        source = (manifests.ROOT / "src/config/knobs.rs").read_text()
        table = source[source.index("pub const KNOBS"):]
        self.assertEqual(len(manifests.knobs()), len(re.findall(r"\bknob\(", table)))

    def test_every_setting_is_there_once(self):
        names = re.findall(r"^  (?:# )?(STREAM_EVENTS_\w+): ", TEXT, re.MULTILINE)
        self.assertEqual(sorted(names), sorted(set(manifests.knobs()) - {SECRET}))

    def test_what_is_not_set_has_its_default(self):
        knobs = manifests.knobs()
        commented = re.findall(r'^  # (STREAM_EVENTS_\w+): "(.*)"$', TEXT, re.MULTILINE)
        self.assertGreater(len(commented), 20)
        for name, text in commented:
            # Without a default it is an example.
            if knobs[name]:
                with self.subTest(setting=name):
                    self.assertEqual(text, knobs[name])

    def test_few_things_have_to_be_edited(self):
        edits = [line for path in (manifests.K8S / "base").iterdir()
                 for line in path.read_text().splitlines() if re.match(r" *# EDIT\b", line)]
        self.assertEqual(len(edits), 3, edits)


if __name__ == "__main__":
    unittest.main()
