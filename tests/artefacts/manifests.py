"""Renders the manifests, as kubectl apply -k would, and finds things in them."""

import copy
import os
import pathlib
import re
import shutil
import subprocess
import tempfile

import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
K8S = ROOT / "k8s"
OVERLAYS = sorted(path.name for path in (K8S / "overlays").iterdir())
# Each overlay for those outside of the cluster, with the component for several replicas as well.
COMBINED = [f"{name}+redis" for name in OVERLAYS if name != "redis"]
ALL = ["base", *OVERLAYS, *COMBINED]

NO_TOOL = "the manifests, since there is neither kubectl of 1.21 or later nor kustomize"


def _tool():
    """What renders. kubectl before 1.21 has a kustomize that knows no components."""
    if shutil.which("kubectl"):
        told = subprocess.run(["kubectl", "version", "--client", "-o", "json"],
                              capture_output=True, text=True).stdout
        version = re.search(r'"major": "(\d+)",\s*"minor": "(\d+)', told)
        if version and (int(version[1]), int(version[2])) >= (1, 21):
            return ["kubectl", "kustomize"]
    return ["kustomize", "build"] if shutil.which("kustomize") else None


TOOL = _tool()


def render(path):
    """The resources of a kustomization. kustomize refuses what is misspelt in one."""
    result = subprocess.run([*TOOL, path], capture_output=True, text=True)
    if result.returncode:
        raise AssertionError(f"{path}: {result.stderr}")
    return [doc for doc in yaml.safe_load_all(result.stdout) if doc]


def render_combined(overlay):
    """As the head of the component says: an overlay with components/redis."""
    (ROOT / "target").mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=ROOT / "target") as directory:
        kustomization = {
            "apiVersion": "kustomize.config.k8s.io/v1beta1",
            "kind": "Kustomization",
            "resources": [os.path.relpath(K8S / "overlays" / overlay, directory),
                          os.path.relpath(K8S / "overlays/redis/server", directory)],
            "components": [os.path.relpath(K8S / "components/redis", directory)],
        }
        path = pathlib.Path(directory, "kustomization.yaml")
        path.write_text(yaml.safe_dump(kustomization))
        return render(directory)


def _render_variant(name):
    if name == "base":
        return render(K8S)
    if name.endswith("+redis"):
        return render_combined(name.removesuffix("+redis"))
    return render(K8S / "overlays" / name)


_rendered = {}


def variant(name):
    """A copy of one of ALL, to be changed at will."""
    if name not in _rendered:
        _rendered[name] = _render_variant(name)
    return copy.deepcopy(_rendered[name])


def all_of(docs, kind, group=""):
    """All resources of a kind; of a group where two have kinds of one name (Gateway)."""
    return [doc for doc in docs if doc["kind"] == kind and doc["apiVersion"].startswith(group)]


def one(docs, kind, name="stream-events"):
    """The resource of that kind and name, or nothing."""
    found = [doc for doc in all_of(docs, kind) if doc["metadata"]["name"] == name]
    return found[0] if found else None


def at(doc, *path, default=None):
    """What is at the end of a path of keys and indices, or the default."""
    for key in path:
        try:
            doc = doc[key]
        except (KeyError, IndexError, TypeError):
            return default
    return doc


def pod(docs):
    """The spec of the gateway's pods."""
    return at(one(docs, "Deployment"), "spec", "template", "spec")


def annotation(doc, name, default=None):
    return at(doc, "metadata", "annotations", name, default=default)


def knobs():
    """Each flag, and its default, from the table in the source."""
    source = " ".join((ROOT / "src/config/knobs.rs").read_text().split())
    found = re.findall(r'knob\( ?"([a-z0-9-]+)", "[^"]*", (?:Some\("([^"]*)"\)|None)', source)
    return {f"STREAM_EVENTS_{flag.replace('-', '_').upper()}": default for flag, default in found}


def settings(docs):
    """The gateway's settings: the defaults, and what the ConfigMap says."""
    return knobs() | at(one(docs, "ConfigMap"), "data", default={})
