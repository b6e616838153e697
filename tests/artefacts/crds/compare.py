"""Compares the schemas beside it with a cluster's: kubectl get crd -o json | python3 compare.py"""

import json
import pathlib
import re
import sys

import yaml

# A limit, and whether a larger one is stricter.
LIMITS = {"minimum": True, "minLength": True, "minItems": True, "maximum": False,
          "maxLength": False, "maxItems": False}


def differences(ours, theirs, where):
    """What the real schema would refuse although ours does not."""
    kind, real = ours.get("type"), theirs.get("type")
    if kind != real:
        yield f"{where}: is {real}, here {kind}"
    for name in set(theirs.get("required", [])) - set(ours.get("required", [])):
        yield f"{where}: {name} is required"
    if not set(ours.get("enum", [])) <= set(theirs.get("enum", ours.get("enum", []))):
        yield f"{where}: only {theirs['enum']} are allowed"
    if "enum" in theirs and "enum" not in ours:
        yield f"{where}: is one of {theirs['enum']}"
    for limit, larger in LIMITS.items():
        if limit not in theirs or "enum" in ours:
            continue
        here = ours.get(limit)
        if here is None or (here < theirs[limit] if larger else here > theirs[limit]):
            yield f"{where}: {limit} is {theirs[limit]}, here {here}"
    pattern = theirs.get("pattern")
    members = ours.get("enum", [])
    if pattern and not (ours.get("pattern") == pattern or members):
        yield f"{where}: has the pattern {pattern}"
    if pattern and not all(re.search(pattern, member) for member in members):
        yield f"{where}: not all of {members} match {pattern}"
    for name, schema in ours.get("properties", {}).items():
        if name not in theirs.get("properties", {}):
            yield f"{where}.{name}: is not there"
        else:
            yield from differences(schema, theirs["properties"][name], f"{where}.{name}")
    for nested in ("items", "additionalProperties"):
        if nested in ours:
            yield from differences(ours[nested], theirs.get(nested) or {}, f"{where}[]")


def main():
    real = {}
    for crd in json.load(sys.stdin)["items"]:
        spec = crd["spec"]
        for version in spec["versions"]:
            name = f"{spec['group']}/{version['name']} {spec['names']['kind']}"
            real[name] = version["schema"]["openAPIV3Schema"]["properties"]["spec"]
    found = []
    for path in sorted(pathlib.Path(__file__).parent.glob("*.yaml")):
        for name, schema in yaml.safe_load(path.read_text()).items():
            if name in real:
                found += differences(schema, real[name], name)
                print(f"compared: {name}")
            else:
                print(f"not compared: {name}, which is not there")
    print("\n".join(found) or "no difference")
    sys.exit(1 if found else 0)


if __name__ == "__main__":
    main()
