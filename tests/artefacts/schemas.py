"""Validates resources strictly: a field that the schema does not know is an error."""

import pathlib

import jsonschema
import kubernetes_validate
import yaml

from manifests import at

# The oldest that has all fields in use (matchLabelKeys), and the newest that the package knows.
KUBERNETES = ["1.27", "1.37"]

METADATA = {
    "type": "object",
    "required": ["name"],
    "properties": {
        "name": {"type": "string"},
        "namespace": {"type": "string"},
        "labels": {"type": "object", "additionalProperties": {"type": "string"}},
        "annotations": {"type": "object", "additionalProperties": {"type": "string"}},
    },
}


def closed(schema):
    """The schema, with no object that takes what it does not name."""
    if isinstance(schema, list):
        return [closed(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    schema = {key: closed(value) for key, value in schema.items()}
    if schema.get("type") == "object":
        schema.setdefault("additionalProperties", False)
    if schema.pop("x-kubernetes-int-or-string", False):
        schema["type"] = ["integer", "string"]
    return schema


def _definitions():
    found = {}
    for path in sorted((pathlib.Path(__file__).parent / "crds").glob("*.yaml")):
        for name, spec in yaml.safe_load(path.read_text()).items():
            api_version, kind = name.split()
            found[name] = closed({
                "type": "object",
                "required": ["apiVersion", "kind", "metadata", "spec"],
                "properties": {"apiVersion": {"const": api_version}, "kind": {"const": kind},
                               "metadata": METADATA, "spec": spec},
            })
    return found


DEFINITIONS = _definitions()


def _of_definition(doc, schema):
    validator = jsonschema.Draft202012Validator(schema)
    return [f"{'.'.join(map(str, error.path))}: {error.message}"
            for error in validator.iter_errors(doc)]


def _of_kubernetes(doc):
    found = []
    for version in KUBERNETES:
        try:
            kubernetes_validate.validate(doc, version, strict=True)
        except kubernetes_validate.ValidationError as error:
            path = ".".join(map(str, error.path))
            found.append(f"Kubernetes {version}: {path}: {error.message}")
        except kubernetes_validate.SchemaNotFoundError as error:
            found.append(error.message)
    return found


def problems(docs):
    """What is wrong with the form of these resources. A kind without a schema is wrong."""
    found = []
    for doc in docs:
        schema = DEFINITIONS.get(f"{doc['apiVersion']} {doc['kind']}")
        for problem in _of_definition(doc, schema) if schema else _of_kubernetes(doc):
            found.append(f"{doc['kind']} {at(doc, 'metadata', 'name')}: {problem}")
    return found
