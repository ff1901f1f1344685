"""Where the seconds of a quick start go: `gan run configs/digits.yaml`, every stage, timed by the lines it says."""

import os
import subprocess
import sys
import tempfile
import time
from typing import Any

# What a phase ends with, in the order of a run; the last with the process.
PHASES = {
    "first line": "",
    "to the first result": "tune   search candidate",
    "search": "tune   chosen",
    "training": "score ",
    "scores": "gate ",
    "registration and page": "done ",
}
TARGETS = {"first line": 1.0, "to the first result": 15.0, "whole": 40.0}  # seconds


def ends(lines: list[tuple[float, str]]) -> dict[str, float]:
    """When each phase has ended: at the first line after the last phase's that begins so."""
    found: dict[str, float] = {}
    names = iter(PHASES)
    name = next(names)
    for at, line in lines:
        while name is not None and line.startswith(PHASES[name]):
            found[name], name = at, next(names, None)
    return found


def quick_start_phases() -> list[dict[str, Any]]:
    """Seconds to the first line, to the first result and of the whole, against their targets, and each phase's share."""
    environment = {name: value for name, value in os.environ.items() if name not in ("RAY_ADDRESS", "GAN_STORAGE")}
    with tempfile.TemporaryDirectory(prefix="gan-") as storage:
        words = ["run", "configs/digits.yaml", "--storage", storage, "--tracking-uri", f"sqlite:///{storage}/mlflow.db"]
        started = time.monotonic()
        with subprocess.Popen(
            [sys.executable, "-m", "pipelines.cli", *words], env=environment, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        ) as process:  # fmt: skip
            assert process.stdout is not None
            lines = [(time.monotonic() - started, line) for line in process.stdout]
        whole = time.monotonic() - started
    assert process.returncode == 0, "".join(line for _, line in lines)
    at = ends(lines) | {"whole": whole}
    rows = [_row(f"quick start, {name} / {most:g} s", at[name], most, 1.0) for name, most in TARGETS.items()]
    before = 0.0
    for name in [*PHASES, "whole"]:
        shown = "end" if name == "whole" else name
        rows.append(_row(f"quick start: {shown} / whole", at[name] - before, whole, None))
        before = at[name]
    return rows


def _row(name: str, seconds: float, peer: float, target: float | None) -> dict[str, Any]:
    ratio = seconds / peer
    return {
        "name": name,
        "ours": seconds,
        "peer": peer,
        "ratio": ratio,
        "target": target,
        "better": "lower",
        "unit": "s",
    }
