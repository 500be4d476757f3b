"""Cuts the schemas of this folder out of what their makers publish, without descriptions: see README.md.

python tests/data/kubernetes/make.py DEFINITIONS SCALEDOBJECTS PODMONITORS

DEFINITIONS is v1.34.0-local-strict/_definitions.json of the Python package kubernetes-validate; the others are the
custom resource definitions in the Go modules of KEDA and of the Prometheus operator.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

HERE = Path(__file__).parent
KINDS = {
    "v1 ConfigMap": "io.k8s.api.core.v1.ConfigMap",
    "v1 Secret": "io.k8s.api.core.v1.Secret",
    "v1 Service": "io.k8s.api.core.v1.Service",
    "v1 ServiceAccount": "io.k8s.api.core.v1.ServiceAccount",
    "apps/v1 StatefulSet": "io.k8s.api.apps.v1.StatefulSet",
    "networking.k8s.io/v1 NetworkPolicy": "io.k8s.api.networking.v1.NetworkPolicy",
    "policy/v1 PodDisruptionBudget": "io.k8s.api.policy.v1.PodDisruptionBudget",
}


def plain(schema: Any, *, names: bool = False) -> Any:
    """The schema without descriptions, with references into its own file. `names`: keys are fields, not keywords."""
    if isinstance(schema, dict):
        return {
            key: plain(value, names=not names and key in ("properties", "$defs"))
            for key, value in schema.items()
            if names or key != "description"
        }
    if isinstance(schema, list):
        return [plain(each) for each in schema]
    return schema.replace("/api/_definitions.json", "") if isinstance(schema, str) else schema


def named(schema: Any) -> set[str]:
    """The definitions that a schema refers to."""
    if isinstance(schema, list):
        return set().union(*map(named, schema))
    if not isinstance(schema, dict):
        return set()
    found = set().union(*map(named, schema.values()))
    return found | {schema["$ref"].rpartition("/")[2]} if isinstance(schema.get("$ref"), str) else found


def write(name: str, content: Any) -> None:
    (HERE / name).write_text(json.dumps(content, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def main(definitions: str, *crds: str) -> None:
    everything = plain(json.loads(Path(definitions).read_text(encoding="utf-8")))["$defs"]
    needed: set[str] = set()
    waiting = set(KINDS.values())
    while waiting:
        needed |= waiting
        waiting = set().union(*(named(everything[name]) for name in waiting)) - needed
    write("kubernetes.json", {"kinds": KINDS, "$defs": {name: everything[name] for name in needed}})
    custom = {}
    for path in crds:
        spec = YAML(typ="safe", pure=True).load(Path(path).read_text(encoding="utf-8"))["spec"]
        for version in spec["versions"]:
            kind = f"{spec['group']}/{version['name']} {spec['names']['kind']}"
            custom[kind] = plain(version["schema"]["openAPIV3Schema"])
    write("custom.json", custom)


if __name__ == "__main__":
    main(*sys.argv[1:])
