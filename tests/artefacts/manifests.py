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
# The overlays that are reached from outside of the cluster, and those of them that are Google's. Without
# istio-canary, which is the overlay istio with Redis.
PUBLIC = [name for name in OVERLAYS if name not in ("istio-canary", "pull", "redis", "try")]
GOOGLE = [name for name in PUBLIC if name.startswith("gke-")]
# An overlay, and the components that are added to it, in this order.
COMBINED = ([f"{name}+redis" for name in PUBLIC]
            + ["redis+prometheus", "gke-gateway+prometheus-service"]
            + [f"{name}+cloud-armor" for name in GOOGLE]
            + [f"{name}+redis+gke-autoscaler+cloud-armor" for name in GOOGLE]
            + [f"{name}+pull" for name in ("base", *PUBLIC)]
            + [f"{name}+redis+pull" for name in GOOGLE])
ALL = ["base", *OVERLAYS, *COMBINED]

# What kustomize adds to the name of a ConfigMap: a hash of its content.
HASH = "-[2456789bcdfghkmt]{10}"

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


def render_own(kustomization):
    """Renders a kustomization of a user's own; its paths begin in the project's directory."""
    (ROOT / "target").mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=ROOT / "target") as directory:
        own = {"apiVersion": "kustomize.config.k8s.io/v1beta1", "kind": "Kustomization"}
        own |= kustomization
        for key in ("resources", "components"):
            own[key] = [os.path.relpath(ROOT / path, directory) for path in own.get(key, [])]
        pathlib.Path(directory, "kustomization.yaml").write_text(yaml.safe_dump(own))
        return render(directory)


def render_combined(overlay, components):
    """Renders an overlay with components, as their heads say; with Redis, the server too."""
    resources = ["k8s" if overlay == "base" else f"k8s/overlays/{overlay}"]
    if "redis" in components:
        resources.append("k8s/overlays/redis/server")
    return render_own({"resources": resources,
                       "components": [f"k8s/components/{name}" for name in components]})


def _render_variant(name):
    if name == "base":
        return render(K8S)
    overlay, *components = name.split("+")
    return render_combined(overlay, components) if components else render(K8S / "overlays" / name)


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
    """The resource of that kind and name, or nothing. A ConfigMap's hash may be left out."""
    end = f"({HASH})?" if kind == "ConfigMap" else ""
    found = [doc for doc in all_of(docs, kind)
             if re.fullmatch(re.escape(str(name)) + end, doc["metadata"]["name"])]
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


def flag_table():
    """The source of the table of flags, without line ends."""
    files = sorted((ROOT / "src/config/flags").glob("*.rs"))
    return " ".join(" ".join(file.read_text().split()) for file in files)


def flag_defaults():
    """Each flag, and its default, from the table in the source."""
    found = re.findall(r'flag\( ?"([a-z0-9-]+)", "[^"]*", (?:Some\("([^"]*)"\)|None)', flag_table())
    return {f"STREAM_EVENTS_{flag.replace('-', '_').upper()}": default for flag, default in found}


def settings(docs):
    """The gateway's settings: the defaults, and what the ConfigMap says."""
    return flag_defaults() | at(one(docs, "ConfigMap"), "data", default={})
