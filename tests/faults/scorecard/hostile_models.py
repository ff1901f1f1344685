"""Hostile models in a registry, and hostile files in a run's folder; each is whole but for what is hostile about it."""

import hashlib
import json
import pickle
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from gan_core.checkpoint import write_checkpoint
from gan_core.datasets import DataSettings, load
from gan_core.portable import CONFIG, WEIGHTS
from pipelines import config
from pipelines.registry import Registry
from pipelines.registry.champion_history import ChampionHistory
from pipelines.registry.mlflow_client import open_client
from pipelines.registry.registration import register
from pipelines.registry.tracking import Tracking
from pipelines.storage import Storage
from tests.faults.scorecard.corpus import SPECIAL, Case, Payload, deep_json, special_file
from tests.pipelines.conftest import principal_generator

MODEL, REGISTRY = "gan-hostile", "registry"
REGISTRY_CODES = (4, 5)
Change = Callable[[Path], object]  # of a model's folder


def registered(folder: Path) -> None:
    """A registry with a model that is whole, of which each case has a copy; its addresses are `folder`'s own."""
    place = folder / REGISTRY
    if (place / "done").exists():
        return
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    uri, digits = f"sqlite:///{place}/mlflow.db", load(DataSettings("digits"))
    open_client(uri, create=True)
    model, registry = principal_generator(digits, 8), Registry(uri)
    parent = Tracking(registry.backend, MODEL, "one", Storage.at(place / "mlartifacts")).parent
    tags = {"run": "one", "weights_sha256": model.sha256, "generator_sha256": model.sha256, "config_digest": "c0"}
    version = register(registry, MODEL, parent, model, {**tags, "data_digest": digits.digest, "commit": "k0"})
    ChampionHistory(registry, MODEL).force(version, "a test")
    (place / "done").touch()


def _edit_config(**changes: Any) -> Change:
    """Another config.json, with a manifest that vouches for it."""

    def change(folder: Path) -> None:
        document = json.loads((folder / CONFIG).read_bytes())
        _replace_config(folder, json.dumps({**document, **changes}).encode())

    return change


def _replace_config(folder: Path, content: bytes) -> None:
    from gan_core.checkpoint import read_checkpoint

    _, tensors = read_checkpoint(folder)
    (folder / CONFIG).write_bytes(content)
    write_checkpoint(folder, 0, tensors, {"config_sha256": hashlib.sha256(content).hexdigest()})


def _replace_weights(content: bytes) -> Change:
    """Other weights, with a manifest that vouches for them."""

    def change(folder: Path) -> None:
        manifest = json.loads((folder / "MANIFEST.json").read_bytes())
        manifest["files"][WEIGHTS] = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        manifest.pop("sha256")
        manifest["sha256"] = hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()
        (folder / "MANIFEST.json").write_text(json.dumps(manifest))
        (folder / WEIGHTS).write_bytes(content)

    return change


def _safetensors(header: object, content: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + content


def _generator(**changes: Any) -> dict[str, Any]:
    return {
        "generator": {"hidden": [16], "activation": "linear", "output": "linear", "marginal_bias": False, **changes}
    }


def _edit_manifest(**changes: Any) -> Change:
    def change(folder: Path) -> None:
        manifest = {**json.loads((folder / "MANIFEST.json").read_bytes()), **changes}
        manifest.pop("sha256")
        manifest["sha256"] = hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()
        (folder / "MANIFEST.json").write_text(json.dumps(manifest))

    return change


def _put(name: str, content: bytes) -> Change:
    return lambda folder: (folder / name).write_bytes(content)


def _special(name: str, kind: str) -> Change:
    def change(folder: Path) -> None:
        (folder / name).unlink()
        special_file(kind, folder / name)

    return change


CONVOLUTIONAL = {"architecture": "convolutional"}
CHANGES: dict[str, Change] = {
    "a million layers": _edit_config(**_generator(hidden=[1] * 10**6)),
    "10,000 layers": _edit_config(**_generator(hidden=[1] * 10**4)),
    "a layer of 10^12": _edit_config(**_generator(hidden=[10**12])),
    "a layer of 2^63": _edit_config(**_generator(hidden=[2**63])),
    "a layer of -1": _edit_config(**_generator(hidden=[-1])),
    "a layer of 1.5": _edit_config(**_generator(hidden=[1.5])),
    "a layer of true": _edit_config(**_generator(hidden=[True])),
    "a layer of NaN": _edit_config(**_generator(hidden=[float("nan")])),
    "noise of 10^12": _edit_config(noise={"prior": "normal", "size": 10**12}),
    "noise of 0": _edit_config(noise={"prior": "normal", "size": 0}),
    "images of 10^6 sides": _edit_config(image_shape=[1] * 10**6),
    "images of 10^9 pixels": _edit_config(image_shape=[10**5, 10**4]),
    "images of no pixels": _edit_config(image_shape=[0, 8]),
    "images of -8 x -8": _edit_config(image_shape=[-8, -8]),
    "images of text": _edit_config(image_shape="88"),
    "conditions of 10^9": _edit_config(condition_size=10**9),
    "another architecture": _edit_config(architecture="evil"),
    "an architecture of no text": _edit_config(architecture=["maxout"]),
    "a setting more": _edit_config(evil=1),
    "a generator's setting more": _edit_config(**_generator(__class__="os.system")),
    "a convolutional one of 10^6 layers": _edit_config(architecture="convolutional", generator={"channels": [1] * 10**6}),
    "pixels of a kind": _edit_config(pixels="evil"),
    "deep brackets": lambda folder: _replace_config(folder, deep_json()),
    "a number of 10^5 digits": lambda folder: _replace_config(folder, b'{"architecture": ' + b"9" * 10**5 + b"}"),
    "a list": lambda folder: _replace_config(folder, b"[]"),
    "null": lambda folder: _replace_config(folder, b"null"),
    "no UTF-8": lambda folder: _replace_config(folder, b'{"\xff": 1}'),
    "an empty config": lambda folder: _replace_config(folder, b""),
    "weights: a pickle": lambda folder: _replace_weights(pickle.dumps(Payload(folder)))(folder),
    "weights: a header of 2^63": _replace_weights(struct.pack("<Q", 2**63) + b"{}"),
    "weights: a header of 90 MB": _replace_weights(_safetensors(b"{" + b" " * 90_000_000 + b"}")),
    "weights: deep brackets": _replace_weights(_safetensors(deep_json())),
    "weights: one over another": _replace_weights(
        _safetensors({f"weights.{i}": {"dtype": "F32", "shape": [16, 16], "data_offsets": [0, 1024]} for i in range(2)}, bytes(1024))
    ),
    "weights: 2^62 numbers": _replace_weights(
        _safetensors({"weights.0": {"dtype": "F32", "shape": [2**31, 2**31], "data_offsets": [0, 8]}}, bytes(8))
    ),
    "weights: a million names": _replace_weights(
        _safetensors({f"w{i}": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]} for i in range(10**6)})
    ),
    "weights: none": _replace_weights(_safetensors({})),
    "weights: NaN": lambda folder: _nan(folder),
    "manifest: a path": _edit_manifest(files={"../../x.safetensors": {"bytes": 1, "sha256": "0"}}),
    "manifest: a million files": _edit_manifest(files={f"{i}.safetensors": {"bytes": 1, "sha256": "0"} for i in range(10**6)}),
    "manifest: no files": _edit_manifest(files={}),
    "manifest: files of text": _edit_manifest(files="generator.safetensors"),
    "manifest: of later": _edit_manifest(schema=2),
    "manifest: a step of NaN": _edit_manifest(step=float("nan")),
    "manifest: a step of 10^400": _edit_manifest(step=10**400),
    "manifest: about text": _edit_manifest(about="x"),
    "manifest: deep brackets": _put("MANIFEST.json", deep_json()),
    "manifest: a pickle": lambda folder: (folder / "MANIFEST.json").write_bytes(pickle.dumps(Payload(folder))),
    **{f"{kind} for weights": _special(WEIGHTS, kind) for kind in SPECIAL},
    **{f"{kind} for config": _special(CONFIG, kind) for kind in SPECIAL},
    **{f"{kind} for manifest": _special("MANIFEST.json", kind) for kind in SPECIAL},
}  # fmt: skip
# Whole, and small: that they are of another model is said by the tag.
ELSEWHERE = ("a million layers", "images of 10^9 pixels", "FIFO for weights", "a terabyte of zeros for config")


def _nan(folder: Path) -> None:
    from gan_core.checkpoint import read_checkpoint

    manifest, tensors = read_checkpoint(folder)
    for tensor in tensors["generator"].values():
        tensor.fill_(float("nan"))
    write_checkpoint(folder, 0, tensors, manifest.about)


def _model(name: str, command: str) -> Callable[[Path], Case]:
    def make(folder: Path) -> Case:
        place = folder.parent / REGISTRY
        (kept,) = place.glob("mlartifacts/**/artifacts/artifacts/generator")
        aside = kept.with_name("undisturbed")
        if aside.exists():  # a trial before this one was interrupted
            shutil.rmtree(kept, ignore_errors=True)
        else:
            kept.rename(aside)
        shutil.copytree(aside, kept)
        CHANGES[name](kept)
        given: list[object] = ["--tracking-uri", f"sqlite:///{place}/mlflow.db", "--storage", "st"]
        if command == "sample":
            return ["sample", f"{MODEL}/1", "-n", "4", "--output", "x.npy", *given], REGISTRY_CODES
        if command == "figure":
            return ["figure", "fig3", f"{MODEL}/1", "--output", "x.png", *given], REGISTRY_CODES
        (folder / "it.yaml").write_text("data: {name: digits}\n")
        words = ["run", "it.yaml", "--continue-from", f"{MODEL}/1", "--name", "it", "--dry-run"]
        return [*words, *given], REGISTRY_CODES

    return make


def models() -> dict[str, Callable[[Path], Case]]:
    """Each model, drawn from; and some in a figure, and gone on from."""
    drawn = {f"model: {name}": _model(name, "sample") for name in CHANGES}
    others = {
        f"model: {name}, {command}": _model(name, command) for name in ELSEWHERE for command in ("figure", "continue")
    }
    return {**drawn, **others}


# A run's folder, each file of it hostile in turn: `gan runs status` and `gan sample`.

RUN_FILES = (
    "run.json",
    "records/train.json",
    "checkpoints/step=00000010/MANIFEST.json",
    "history/00000010-00000010.jsonl",
)
CONTENTS: dict[str, Change] = {
    "deep brackets": lambda path: path.write_bytes(deep_json()),
    "a number of 10^5 digits": lambda path: path.write_bytes(b'{"configuration": {"seed": ' + b"9" * 10**5 + b'}, "record": 1, "step": 1}'),
    "a list": lambda path: path.write_bytes(b"[]"),
    "empty": lambda path: path.write_bytes(b""),
    "random bytes": lambda path: path.write_bytes(np.random.default_rng(0).bytes(5000)),
    "a pickle": lambda path: path.write_bytes(pickle.dumps(Payload(path.parent))),
    **{kind: (lambda path, kind=kind: special_file(kind, path)) for kind in SPECIAL},
}  # fmt: skip


def _run(name: str, file: str) -> Callable[[Path], Case]:
    def make(folder: Path) -> Case:
        run = folder / "st" / "runs" / "it"
        storage = Storage.at(run)
        storage.write_json(
            "run.json", {"run": "it", "commit": "k0", "configuration": config.to_plain(config.build({}))}
        )
        path = run / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        CONTENTS[name](path)
        if file.startswith("history"):
            return ["table", "table1", "it", "--storage", "st"], (4,)
        command: list[object] = (
            ["runs", "status", "it"] if "checkpoints" not in file else ["sample", "it", "--output", "x.npy"]
        )
        return [*command, "--storage", "st"], (2, 4)

    return make


def runs() -> dict[str, Callable[[Path], Case]]:
    """Each hostile content in each file of a run that is read again."""
    return {f"run: {file}: {name}": _run(name, file) for file in RUN_FILES for name in CONTENTS}
