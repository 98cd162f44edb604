"""Strict schemas of what the Dask operator adds to Kubernetes, from the package that the operator is in."""

import functools
import importlib.util
from pathlib import Path

import jsonschema
import yaml


@functools.cache
def custom_validator(kind):
    """Validator of one of the operator's resources, in which an unknown key is an error."""
    package = Path(importlib.util.find_spec("dask_kubernetes").origin).parent
    path = package / "operator/deployment/helm/dask-kubernetes-operator/crds" / f"{kind.lower()}.yaml"
    version = yaml.load(path.read_text(), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))["spec"][
        "versions"
    ][0]
    schema = version["schema"]["openAPIV3Schema"]
    schema["properties"] |= {name: {"type": "string"} for name in ("apiVersion", "kind")}
    schema["properties"]["metadata"] = {"type": "object"}
    # the schema itself is the operator's, and large
    return jsonschema.Draft202012Validator(strict(schema))


def strict(schema):
    if isinstance(schema, list):
        return [strict(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    made = {key: strict(value) for key, value in schema.items()}
    if made.pop("x-kubernetes-int-or-string", False):
        made.pop("type", None)
        made["anyOf"] = [{"type": "integer"}, {"type": "string"}]
    open_ended = made.pop("x-kubernetes-preserve-unknown-fields", False)
    if isinstance(made.get("properties"), dict) and not open_ended:
        made.setdefault("additionalProperties", False)
    return made
