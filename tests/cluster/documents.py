"""The Kubernetes documents of `cluster/`: rendered, walked, validated strictly."""

import copy
import functools
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

REPOSITORY = Path(__file__).parents[2]
CLUSTER = REPOSITORY / "cluster"
NIGHT = CLUSTER / "kuberay/base"
SETS = ("kuberay/base", "kuberay/overlays/local-kind", "kuberay/overlays/cloud-gpu", "mlflow")
# The oldest Kubernetes that the manifests are meant for, and the newest whose schemas there are.
KUBERNETES = ("1.32", kubernetes_validate.latest_version())
CRDS = Path(os.environ.get("KUBERAY_CRDS", REPOSITORY.parent / "shared/kuberay"))

Document = dict[str, Any]


@functools.cache
def _rendered(name: str) -> str:
    if shutil.which("kubectl") is None:
        pytest.skip("kubectl, which renders a kustomization, is not installed")
    return subprocess.run(
        ["kubectl", "kustomize", str(CLUSTER / name)], check=True, capture_output=True, text=True
    ).stdout


def rendered(name: str) -> list[Document]:
    """The documents of a kustomization, as they would be applied."""
    return [document for document in yaml.load_all(_rendered(name), yaml.CSafeLoader) if document]


def of_kind(documents: list[Document], kind: str) -> list[Document]:
    return [document for document in documents if document["kind"] == kind]


def single_run() -> Document:
    return yaml.safe_load((CLUSTER / "kuberay/run.yaml").read_text())


def templates(document: Document) -> Iterator[tuple[str, Document]]:
    """The pod templates of a document, each with a name."""
    spec, kind = document.get("spec", {}), document["kind"]
    if kind in ("Deployment", "StatefulSet"):
        yield kind, spec["template"]
    elif kind == "CronJob":
        yield kind, spec["jobTemplate"]["spec"]["template"]
    elif kind == "RayCluster":
        yield "head", spec["headGroupSpec"]["template"]
        for group in spec["workerGroupSpecs"]:
            yield group["groupName"], group["template"]


def containers(template: Document) -> list[Document]:
    return [*template["spec"].get("initContainers", []), *template["spec"]["containers"]]


def validate(document: Document, versions: tuple[str, ...] = KUBERNETES[:1]) -> None:
    """Validate strictly: an unknown field, or one of the wrong type, is an error.

    A Ray document's pods are validated as Kubernetes' own too: the CRD's copy of their schema knows fewer rules.

    Raises:
        jsonschema.ValidationError: If the document does not fit its schema.
    """
    ray = document["apiVersion"].startswith("ray.io/")
    pods = [{"apiVersion": "v1", "kind": "Pod", "metadata": {}, **template} for _, template in templates(document)]
    for one in pods if ray else [document]:
        for version in versions:
            _validate(json.dumps(one), version)
    if ray:
        _crd(document["kind"]).validate(document)


@functools.cache  # most documents of an overlay are those of its base
def _validate(document: str, version: str) -> None:
    kubernetes_validate.validate(json.loads(document), version, strict=True)


@functools.cache
def _crd(kind: str) -> jsonschema.Draft202012Validator:
    path = CRDS / f"ray.io_{kind.lower()}s.crd.yaml"
    if not path.is_file():
        pytest.skip(f"no {path.name} in {CRDS} (KUBERAY_CRDS says where)")
    definition = yaml.load(path.read_text(), yaml.CSafeLoader)
    [version] = [version for version in definition["spec"]["versions"] if version["name"] == "v1"]
    return jsonschema.Draft202012Validator(_strict(version["schema"]["openAPIV3Schema"]))


def _strict(schema: Any) -> Any:
    """Refuse what Kubernetes would prune without a word: fields the schema does not know."""
    if isinstance(schema, list):
        return [_strict(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    strict = {key: _strict(value) for key, value in schema.items()}
    if isinstance(schema.get("properties"), dict) and not schema.get("x-kubernetes-preserve-unknown-fields"):
        strict.setdefault("additionalProperties", False)
    return strict


def changed(document: Document, path: str, value: Any = None) -> Document:
    """A copy with the field at a path such as `spec/0/name` set, or `old>new` renamed."""
    document = copy.deepcopy(document)
    *parents, last = path.split("/")
    where: Any = document
    for part in parents:
        where = where[int(part) if part.isdigit() else part]
    if ">" in last:
        old, new = last.split(">")
        where[new] = where.pop(old)
    else:
        where[int(last) if last.isdigit() else last] = value
    return document
