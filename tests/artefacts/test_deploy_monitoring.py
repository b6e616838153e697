"""Alerts and dashboards ask for metrics that exist, and name a part of the runbook."""

import json
import re
import unittest

import yaml

from deploy_processes import PROJECT

RULES = PROJECT / "k8s/components/prometheus/rules.yaml"
DASHBOARD = PROJECT / "deploy/grafana/dashboard.json"
# Of every process that a client library of Prometheus watches.
PROCESS = {"process_start_time_seconds", "process_resident_memory_bytes"}


def table():
    """The metrics of docs/metrics.md: {name: (type, label or None)}."""
    rows = re.findall(r"^\| `(\w+)` \| (\w+)(?:, `(\w+)`)? \|", (PROJECT / "docs/metrics.md").read_text(), re.M)
    return {name: (kind, label or None) for name, kind, label in rows}


def values():
    """Every text in the code: a value of a label is one of them."""
    code = "".join(path.read_text() for path in (PROJECT / "src").rglob("*.rs"))
    return set(re.findall(r'"([a-z0-9-]+)"', code))


def unknown(expression, metrics):
    """What an expression of PromQL asks for that is not there."""
    found = [f"the value {value}" for text in re.findall(r'=~?"([^"]*)"', expression)
             for value in text.split("|") if value not in VALUES]
    for name in re.findall(r"\b(?:stream_events|process)_\w+", expression):
        kind, label = metrics.get(name.removesuffix("_bucket"), (None, None))
        if name.endswith("_bucket") and kind != "histogram":
            kind = None
        if kind is None and name not in PROCESS:
            found.append(name)
        if kind == "counter" and not re.search(rf"(?:rate|increase)\({name}[{{\[]", expression):
            found.append(f"{name} without its rate")
        for used in re.findall(rf"{name}\{{(\w+)=", expression):
            if used != label:
                found.append(f"{name}{{{used}}}")
    return found


VALUES = values()


class Monitoring(unittest.TestCase):
    def setUp(self):
        self.rules = yaml.safe_load(RULES.read_text())["spec"]["groups"][0]["rules"]
        self.panels = json.loads(DASHBOARD.read_text())["panels"]

    def test_metrics_exist(self):
        metrics = table()
        self.assertGreater(len(metrics), 30)
        asked = [rule["expr"] for rule in self.rules]
        asked += [target["expr"] for panel in self.panels for target in panel["targets"]]
        self.assertGreater(len(asked), 25)
        for expression in asked:
            with self.subTest(expression):
                self.assertEqual(unknown(expression, metrics), [])
        for wrong in ("stream_events_nothing > 1", "rate(stream_events_streams_bucket[5m])",
                      'rate(stream_events_gaps_total{reason="evicted|lost"}[5m])',
                      "stream_events_poison_total > 0", 'rate(stream_events_gaps_total{why="x"}[5m])'):
            self.assertNotEqual(unknown(wrong, metrics), [], wrong)

    def test_alerts_name_a_part_of_the_runbook(self):
        for rule in self.rules:
            with self.subTest(rule["alert"]):
                path, anchor = rule["annotations"]["runbook"].split("#")
                headings = re.findall(r"^#+ (.*)$", (PROJECT / path).read_text(), re.M)
                # As GitHub makes anchors.
                anchors = [re.sub(r"[^\w -]", "", head.lower()).replace(" ", "-") for head in headings]
                self.assertIn(anchor, anchors)
                self.assertIn(rule["labels"]["severity"], ("critical", "warning"))
                # Cloud Monitoring takes seconds alone.
                self.assertRegex(rule["for"], r"^\d+s$")

    def test_panels_do_not_overlap(self):
        taken = set()
        for panel in self.panels:
            place = panel["gridPos"]
            cells = {(x, y) for x in range(place["x"], place["x"] + place["w"])
                     for y in range(place["y"], place["y"] + place["h"])}
            self.assertFalse(cells & taken, panel["title"])
            self.assertLessEqual(place["x"] + place["w"], 24)
            taken |= cells
