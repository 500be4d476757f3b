"""Kubernetes manifests as an API server would take them: put together as kustomize does, and held to its schemas.

Only what `deploy/kubernetes` uses of kustomize is understood, and anything else in a kustomization is an error, so that
this cannot quietly differ from the real one (which a test asks too, where there is one).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
from ruamel.yaml import YAML

SCHEMAS = Path(__file__).parents[1] / "data" / "kubernetes"
UNDERSTOOD = {"apiVersion", "kind", "resources", "configMapGenerator", "generatorOptions", "patches"}
Manifest = dict[str, Any]


def read_yaml(path: Path) -> list[Any]:
    return list(YAML(typ="safe", pure=True).load_all(path.read_text(encoding="utf-8")))


def rendered(folder: Path, *components: str) -> list[Manifest]:
    """What `kubectl kustomize` prints for the folder, with these of its components switched on."""
    (kustomization,) = read_yaml(folder / "kustomization.yaml")
    assert set(kustomization) <= UNDERSTOOD, set(kustomization) - UNDERSTOOD
    made = [manifest for name in kustomization["resources"] for manifest in read_yaml(folder / name)]
    options = kustomization.get("generatorOptions", {})
    for generator in kustomization.get("configMapGenerator", []):
        assert set(generator) == {"name", "files"} and options.get("disableNameSuffixHash") is True
        made.append(
            {
                "apiVersion": "v1",
                "kind": "ConfigMap",
                "metadata": {"name": generator["name"], "labels": options["labels"]},
                "data": {Path(name).name: (folder / name).read_text(encoding="utf-8") for name in generator["files"]},
            }
        )
    for name in components:
        (component,) = read_yaml(folder / name / "kustomization.yaml")
        assert component["kind"] == "Component" and set(component) <= UNDERSTOOD
        made += [manifest for file in component["resources"] for manifest in read_yaml(folder / name / file)]
        for patch in component.get("patches", []):
            target = the(made, patch["target"]["kind"], patch["target"]["name"])
            for step in YAML(typ="safe", pure=True).load(patch["patch"]):
                assert step["op"] == "remove"
                *above, last = step["path"].strip("/").split("/")
                for key in above:
                    target = target[key]
                del target[last]
    return made


def the(manifests: Sequence[Manifest], kind: str, name: str = "meisa-bridge") -> Manifest:
    """The one of this kind and name."""
    (found,) = [each for each in manifests if each["kind"] == kind and each["metadata"]["name"] == name]
    return found


def complaints(manifest: Manifest) -> list[str]:
    """What is wrong with a manifest by the schema of its kind; a kind without one is wrong too."""
    kind = f"{manifest.get('apiVersion')} {manifest.get('kind')}"
    schema = _schemas().get(kind)
    if schema is None:
        return [f"no schema for {kind}"]
    return [
        f"{error.json_path}: {error.message}" for error in jsonschema.Draft202012Validator(schema).iter_errors(manifest)
    ]


@cache
def _schemas() -> dict[str, Any]:
    own = json.loads((SCHEMAS / "kubernetes.json").read_text(encoding="utf-8"))
    found: dict[str, Any] = {
        kind: {"$ref": f"#/$defs/{name}", "$defs": own["$defs"]} for kind, name in own["kinds"].items()
    }
    custom = json.loads((SCHEMAS / "custom.json").read_text(encoding="utf-8"))
    return {**found, **{kind: _closed(schema) for kind, schema in custom.items()}}


def _closed(schema: Any, *, names: bool = False) -> Any:
    """A custom resource's schema in which unknown fields are errors, as `kubectl apply` treats them."""
    if isinstance(schema, list):
        return [_closed(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    made = {key: _closed(value, names=not names and key == "properties") for key, value in schema.items()}
    if not names and "properties" in schema and not schema.get("x-kubernetes-preserve-unknown-fields"):
        made.setdefault("additionalProperties", False)
    return made


def mounted(manifests: Sequence[Manifest], root: Path) -> Iterator[Path]:
    """Writes the ConfigMaps below `root` where the container of the StatefulSet finds them, by symlinks as a kubelet
    does; gives each mounted folder."""
    pod = the(manifests, "StatefulSet")["spec"]["template"]["spec"]
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    for mount in pod["containers"][0]["volumeMounts"]:
        volume = volumes.get(mount["name"], {})
        if "configMap" not in volume:
            continue
        folder = root / mount["mountPath"].lstrip("/")
        put_config_map(folder, the(manifests, "ConfigMap", volume["configMap"]["name"])["data"])
        yield folder


def put_config_map(folder: Path, data: dict[str, str]) -> None:
    """A ConfigMap's content in its mounted folder, first or anew: symlinks through `..data`, which is exchanged."""
    folder.mkdir(parents=True, exist_ok=True)
    here = folder / f"..{len(list(folder.glob('..2*'))) + 2000}"
    here.mkdir()
    for name, text in data.items():
        (here / name).write_text(text, encoding="utf-8")
    new = folder / "..data_tmp"
    new.symlink_to(here.name)
    new.replace(folder / "..data")
    for name in data:
        if not (folder / name).is_symlink():
            (folder / name).symlink_to(f"..data/{name}")
    for path in folder.iterdir():
        if path.is_symlink() and not path.exists():
            path.unlink()
