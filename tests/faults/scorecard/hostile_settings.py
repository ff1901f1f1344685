"""Hostile configurations and overrides: `gan run FILE --dry-run`."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from tests.faults.scorecard.corpus import SPECIAL, Case, special_file

SETTINGS = "data: {name: digits}\nalgorithm: {steps: 10}\n"


YAML: dict[str, str | bytes] = {
    "alias bomb": "a: &a [1,1,1,1,1,1,1,1,1]\n"
    + "".join(f"{b}: &{b} [{','.join(['*' + a] * 9)}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)),
    "alias of itself": "data: &a {name: *a}\n",
    "alias of itself in a list": "network: &a [*a, *a]\n",
    "merge bomb": "a: &a {x: 1}\n"
    + "".join(f"{b}: &{b} {{<<: [{','.join(['*' + a] * 9)}]}}\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)),
    "deep brackets": "network: " + "[" * 100_000,
    "deep braces": "network: " + "{a: " * 50_000,
    "deep blocks": "".join(" " * depth + "a:\n" for depth in range(1200)),
    "deep quotes": "network: " + "'" * 200_001,
    "a million layers": f"{SETTINGS}network: {{generator: {{hidden: [{','.join(['1'] * 400_000)}]}}}}\n",
    "99,000 layers": f"{SETTINGS}network: {{generator: {{hidden: [{','.join(['1'] * 99_000)}]}}}}\n",
    "2,000 layers": f"{SETTINGS}network: {{generator: {{hidden: [{','.join(['1'] * 2_000)}]}}}}\n",
    "a layer of 10^12": f"{SETTINGS}network: {{generator: {{hidden: [1000000000000]}}}}\n",
    "a layer of 10^30": f"{SETTINGS}network: {{generator: {{hidden: [{10**30}]}}}}\n",
    "layers of 10^5 units": f"{SETTINGS}network: {{generator: {{hidden: [100000, 100000]}}}}\n",
    "noise of 10^12": f"{SETTINGS}noise: {{size: 1000000000000}}\n",
    "a billion candidates": f"{SETTINGS}tune: {{candidates: 1000000000, space: {{algorithm.generator_learning_rate: {{log_uniform: [0.01, 0.1]}}}}}}\n",
    "a million choices": f"{SETTINGS}tune: {{candidates: 2, space: {{noise.size: {{choice: [{','.join(['3'] * 200_000)}]}}}}}}\n",
    "10^12 steps of a billion reports": f"{SETTINGS}train: {{report_every: 0}}\n",
    "batches of 10^15": f"{SETTINGS}train: {{workers: 1, virtual_shards: 1}}\n".replace(
        "steps: 10", f"batch_size: {10**15}"
    ),
    "10^12 samples to score": f"{SETTINGS}evaluate: {{samples: {10**12}}}\n",
    "a number of 10,000 digits": f"seed: {'9' * 10_000}\n",
    "an octal of 10,000 digits": f"seed: 0{'7' * 10_000}\n",
    "sixties of 10,000 places": f"seed: 1{':59' * 10_000}\n",
    "infinite": f"{SETTINGS}noise: {{scale: .inf}}\n",
    "nan": "algorithm: {generator_learning_rate: .nan}\n",
    "9e999": "algorithm: {generator_learning_rate: 9e999}\n",
    "python object": "data: !!python/object/apply:os.mkdir [executed]\n",
    "python name": "data: {name: !!python/name:os.system }\n",
    "python module": "data: !!python/module:this {}\n",
    "another tag": "data: !evil {name: digits}\n",
    "binary": "data: {name: !!binary aGVsbG8=}\n",
    "a set": "data: !!set {name, root}\n",
    "a date": "seed: 2020-13-45\n",
    "a date as a key": "2020-01-01: {name: digits}\n",
    "a list as a key": "? [a, b]\n: {name: digits}\n",
    "a key twice": "seed: 1\nseed: 2\n",
    "a key twice, once quoted": 'seed: 1\n"seed": 2\n',
    "two documents": "seed: 1\n---\nseed: 2\n",
    "a directive": "%YAML 9.9\n---\nseed: 1\n",
    "an empty override name": '"": 1\n',
    "null": "null\n",
    "text": "hello\n",
    "a list": "- 1\n",
    "NUL": b"seed: 1\x00\n",
    "UTF-16": "seed: 1e\n".encode("utf-16"),
    "latin-1": "data: {name: caf\xe9}\n".encode("latin-1"),
    "random bytes": bytes(np.random.default_rng(0).integers(0, 256, 4000, np.uint8)),
    "a terminal's codes": '"\\e[31m\\n\\u202e": {name: digits}\n',
    "two mebibytes": "# " + "x" * 2**21 + "\n",
    "a root with NUL": 'data: {name: images, root: "a\\0b"}\n',
    "a root of 10,000 letters": f"data: {{name: images, root: /{'a' * 10_000}}}\n",
    "a model's name": "registry: {model: ../../etc}\n",
}


def configuration(name: str) -> Callable[[Path], Case]:
    """A configuration of the corpus; some are settings that are legal, if large: 0 or 2."""

    def make(folder: Path) -> Case:
        content = YAML[name]
        (folder / "it.yaml").write_bytes(content if isinstance(content, bytes) else content.encode())
        data = (3, 2) if name.startswith("a root") else (2,)
        legal = {"null": (0,), "2,000 layers": (0, 2), "a million choices": (0, 2), "layers of 10^5 units": (0, 2, 4),
                 "10^12 samples to score": (0, 2), "sixties of 10,000 places": (0, 2)}  # fmt: skip
        return ["run", "it.yaml", "--name", "it", "--storage", "st", "--dry-run"], legal.get(name, data)

    return make


def special(kind: str) -> Callable[[Path], Case]:
    """A configuration that is no file of text."""

    def make(folder: Path) -> Case:
        path = folder / "it.yaml"
        special_file(kind, path)
        return ["run", "it.yaml", "--storage", "st", "--dry-run"], (2,)

    return make


OVERRIDES = {
    "brackets": "network=" + "[" * 50_000,
    "an alias": "network=&a [*a]",
    "python": "data.name=!!python/object/apply:os.mkdir [executed]",
    "a name of 10,000 dots": "a" + ".a" * 10_000 + "=1",
    "no name": "=1",
    "no value": "seed",
    "a number of 10,000 digits": "seed=" + "9" * 10_000,
    "a terminal's codes": "seed=\x1b[31m\n",
}


def override(name: str) -> Callable[[Path], Case]:
    """A hostile `--set`."""

    def make(folder: Path) -> Case:
        (folder / "it.yaml").write_text(SETTINGS)
        return ["run", "it.yaml", "--set", OVERRIDES[name], "--storage", "st", "--dry-run"], (2,)

    return make


def settings() -> dict[str, Callable[[Path], Case]]:
    """All of them, by name."""
    return {
        **{f"configuration: {name}": configuration(name) for name in YAML},
        **{f"configuration: {kind}": special(kind) for kind in SPECIAL},
        **{f"override: {name}": override(name) for name in OVERRIDES},
    }
