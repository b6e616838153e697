"""The schemas of Google's Terraform provider, without the provider: PyPI has a package that was generated
from them. Blocks are {attributes: {name: [type, optional]}, blocks: {name: [block, most, optional]},
computed: {name: type}}."""

import io
import json
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from functools import cache

from deploy_processes import PROJECT, not_checked

# Provider 6.50.0: https://pypi.org/project/cdktf-cdktf-provider-google/
PACKAGE = "cdktf-cdktf-provider-google==16.12.1"
# The one resource of google-beta. The package has no schema of it: this one is from its page in the registry.
IDENTITY = {
    "attributes": {"service": ["string", False], "project": ["string", True], "id": ["string", True]},
    "blocks": {}, "computed": {"email": "string", "member": "string"},
}
PRIMITIVE = {"boolean": "bool", "string": "string", "number": "number", "any": "dynamic"}


def schemas(resources, data):
    """The schemas of these resources and data sources, by provider."""
    types = _types()
    google = {"resources": {name: _schema(types, name, "") for name in resources - {IDENTITY_NAME}},
              "data": {name: _schema(types, name, "datagoogle") for name in data}}
    return {"google": google, "google-beta": {"resources": {IDENTITY_NAME: IDENTITY}, "data": {}}}


IDENTITY_NAME = "google_project_service_identity"


@cache
def _types():
    """The package's types by name, in small letters."""
    kept = PROJECT / "target/artefacts" / PACKAGE / "types.json"
    if not kept.exists():
        part = kept.parent.with_suffix(".part")
        load = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", part, PACKAGE]
        if subprocess.run(load, capture_output=True).returncode:
            shutil.rmtree(part, ignore_errors=True)
            not_checked("terraform validate, since neither the provider nor its schemas could be had")
        with zipfile.ZipFile(next(part.glob("*.whl"))) as wheel:
            name = next(name for name in wheel.namelist() if name.endswith(".jsii.tgz"))
            with tarfile.open(fileobj=io.BytesIO(wheel.read(name))) as files:
                all_types = json.load(files.extractfile("package/.jsii"))["types"]
        found = {key: {part: each[part] for part in ("name", "properties") if part in each}
                 for key, each in all_types.items()}
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.write_text(json.dumps(found))
        shutil.rmtree(part)
    return json.loads(kept.read_text())


def _schema(types, name, prefix):
    wanted = prefix + name.removeprefix("google_").replace("_", "")
    named = {each["name"].lower(): each for each in types.values()}
    found = _block(types, named[f"{wanted}config"])
    known = {each.replace("_", "") for part in ("attributes", "blocks") for each in found[part]}
    for each in named[wanted].get("properties", []):
        own = _snake(each["name"])
        hidden = each.get("static") or each["name"].endswith("Input")
        if not hidden and own.replace("_", "") not in known:
            kind = PRIMITIVE.get(each["type"].get("primitive"), "dynamic")
            found["computed"][own] = kind
    return found


def _block(types, of):
    block = {"attributes": {}, "blocks": {}, "computed": {}}
    for each in of.get("properties", []):
        # The provider's own name stands in the link to its page, if there is one.
        link = re.search(r"#(\w+) \w+#\w+", json.dumps(each.get("docs", {})))
        name = link[1] if link else _snake(each["name"])
        optional, kind = each.get("optional", False), _known(each["type"])
        element = _known(kind["collection"]["elementtype"]) if "collection" in kind else {}
        if kind.get("fqn") in types:
            block["blocks"][name] = [_block(types, types[kind["fqn"]]), 1, optional]
        elif element.get("fqn") in types:
            block["blocks"][name] = [_block(types, types[element["fqn"]]), 0, optional]
        elif element:
            outer = "map" if kind["collection"]["kind"] == "map" else "list"
            inner = PRIMITIVE.get(element.get("primitive"), "dynamic")
            block["attributes"][name] = [[outer, inner], optional]
        else:
            block["attributes"][name] = [PRIMITIVE[kind["primitive"]], optional]
    return block


def _snake(name):
    return re.sub(r"(?<!^)([A-Z])", r"_\1", name).lower()


def _known(kind):
    """The type itself, if the type is a union with IResolvable, which stands for values that are known later."""
    if "union" in kind:
        return next(each for each in kind["union"]["types"] if each.get("fqn") != "cdktf.IResolvable")
    return kind
