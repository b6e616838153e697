"""Every resource has the form that the cluster wants, and no field may be misspelt."""

import copy
import unittest

import manifests
import schemas

# Below these anything may stand, as in labels.
FREE = {"annotations", "data", "labels", "limits", "matchLabels", "portLevelMtls", "requests"}


def fields(value, path=()):
    """The paths of all fields whose names a schema knows."""
    if isinstance(value, list):
        for index, item in enumerate(value):
            yield from fields(item, (*path, index))
    if isinstance(value, dict):
        free = path and (path[-1] in FREE or path[-2:] == ("spec", "selector"))
        for key, item in value.items():
            if not free or isinstance(item, dict):
                yield from fields(item, (*path, key))
            if not free:
                yield (*path, key)


def misspelt(doc, path):
    doc = copy.deepcopy(doc)
    parent = manifests.at(doc, *path[:-1])
    parent[f"{path[-1]}x"] = parent.pop(path[-1])
    return doc


def all_fields():
    """Each field that any variant has, once: its resource, and its path there."""
    found = {}
    for name in manifests.ALL:
        for doc in manifests.variant(name):
            for path in fields(doc):
                general = tuple("*" if isinstance(key, int) else key for key in path)
                found.setdefault((doc["apiVersion"], doc["kind"], general), (doc, path))
    return list(found.values())


@unittest.skipUnless(manifests.TOOL, manifests.NO_TOOL)
class Schemas(unittest.TestCase):
    def test_every_variant_is_valid(self):
        for name in manifests.ALL:
            with self.subTest(variant=name):
                self.assertEqual(schemas.problems(manifests.variant(name)), [])

    def test_every_misspelt_field_is_noticed(self):
        tried = 0
        for doc, path in all_fields():
            # apiVersion and kind decide on the schema: without them there is none.
            if path not in (("apiVersion",), ("kind",)):
                tried += 1
                with self.subTest(kind=doc["kind"], path=path):
                    self.assertTrue(schemas.problems([misspelt(doc, path)]))
        self.assertGreater(tried, 300)

    def test_wrong_values_are_noticed(self):
        for name, kind, path, value in (
                ("base", "Deployment", ("spec", "replicas"), "one"),
                ("base", "Service", ("spec", "ports", 0, "port"), "80"),
                ("gke-ingress", "BackendConfig", ("spec", "timeoutSec"), "1h"),
                ("gke-ingress+cloud-armor", "BackendConfig", ("spec", "securityPolicy"), "events"),
                ("gke-gateway", "GCPGatewayPolicy", ("spec", "default", "sslPolicy"), 1),
                ("gke-ingress", "ManagedCertificate", ("spec", "domains", 0), "*.example.com"),
                ("gke-gateway", "GCPBackendPolicy", ("spec", "default", "timeoutSec"), 0),
                ("gke-gateway", "GCPBackendPolicy", ("spec", "default", "logging", "sampleRate"),
                 0.01),
                ("gke-gateway", "HealthCheckPolicy", ("spec", "default", "config", "type"), "http"),
                ("gke-gateway", "HTTPRoute", ("spec", "rules", 0, "matches", 0, "path", "type"),
                 "Prefix"),
                ("gke-ingress", "PodMonitoring", ("spec", "endpoints", 0, "interval"), "30 s"),
                ("istio", "VirtualService", ("spec", "http", 0, "timeout"), "0s"),
                ("istio", "PeerAuthentication", ("spec", "mtls", "mode"), "strict"),
                ("istio", "AuthorizationPolicy", ("spec", "action"), "Allow")):
            doc = manifests.one(manifests.variant(name), kind)
            manifests.at(doc, *path[:-1])[path[-1]] = value
            with self.subTest(kind=kind, value=value):
                self.assertTrue(schemas.problems([doc]))

    def test_a_kind_without_a_schema_is_noticed(self):
        policy = {"apiVersion": "networking.gke.io/v1", "kind": "GCPBackendPolicies",
                  "metadata": {"name": "x"}, "spec": {}}
        self.assertTrue(schemas.problems([policy]))


if __name__ == "__main__":
    unittest.main()
