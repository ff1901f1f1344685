"""`make bench`: our parts against a peer on the same work in the same run, as ratios."""

import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from sklearn.neighbors import KernelDensity

from gan_core.algorithm1 import AlgorithmSettings
from gan_core.datasets import Examples
from gan_core.parzen import PAPER_GRID, parzen_log_density
from gan_core.training import TrainingSettings, initial_state, train
from tests.benchmarks.peers import handwritten_loop

THREADS = 2
ROUNDS = 5


def paired(ours: Callable[[], None], peer: Callable[[], None], rounds: int = ROUNDS) -> tuple[float, float, float]:
    """Median seconds of each and the median of the ratios, measured in turn after a warm-up."""
    ours(), peer()
    pairs = [(timed(ours), timed(peer)) for _ in range(rounds)]
    return (
        statistics.median(a for a, _ in pairs),
        statistics.median(b for _, b in pairs),
        statistics.median(a / b for a, b in pairs),
    )


def timed(work: Callable[[], None]) -> float:
    """Seconds a piece of work takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def row(name: str, measured: tuple[float, float, float], target: float | None, better: str, unit: str) -> dict:
    """One line of the table."""
    ours, peer, ratio = measured
    return {"name": name, "ours": ours, "peer": peer, "ratio": ratio, "target": target, "better": better, "unit": unit}


def step_against_handwritten(steps: int = 30) -> dict:
    """The published MNIST step, whole and then against a plain PyTorch loop doing the same arithmetic."""
    settings = TrainingSettings(algorithm=AlgorithmSettings(steps=10**9))
    images = np.random.default_rng(0).random((2000, 784), dtype=np.float32)
    data = Examples(images, np.zeros(2000, np.int64))
    state = initial_state(settings, data)

    def ours() -> None:
        start = int(state.step)
        for _ in train(settings, data, state, start + steps, lambda step: False):
            pass

    peer = handwritten_loop(images, steps)
    measured = paired(ours, peer)
    scaled = tuple(seconds / steps * 1000 for seconds in measured[:2])
    return row("training step / hand-written loop", (*scaled, measured[2]), 1.05, "lower", "ms")


def sharded_step(shards: int = 4, steps: int = 30) -> dict:
    """Four virtual shards on one worker against one."""
    images = np.random.default_rng(0).random((2000, 784), dtype=np.float32)
    data = Examples(images, np.zeros(2000, np.int64))

    def loop(count: int) -> Callable[[], None]:
        settings = TrainingSettings(algorithm=AlgorithmSettings(steps=10**9), virtual_shards=count)
        state = initial_state(settings, data)

        def work() -> None:
            for _ in train(settings, data, state, int(state.step) + steps, lambda step: False):
                pass

        return work

    measured = paired(loop(shards), loop(1))
    scaled = tuple(seconds / steps * 1000 for seconds in measured[:2])
    return row(f"{shards} virtual shards / 1, one worker", (*scaled, measured[2]), 2.0, "lower", "ms")


def parzen_against_product(count: int = 10_000) -> dict:
    """Ten sigmas over count x count x 784 against one matrix product of that size."""
    random = np.random.default_rng(0)
    samples, points = (random.random((count, 784), dtype=np.float32) for _ in range(2))
    left, right = torch.from_numpy(points), torch.from_numpy(samples)
    measured = paired(lambda: parzen_log_density(points, samples, PAPER_GRID), lambda: left @ right.T, rounds=3)
    return row("Parzen, 10 sigmas / one matrix product", measured, 6.0, "lower", "s")


def parzen_against_kernel_density(count: int = 1000) -> dict:
    """Ten sigmas against scikit-learn's KernelDensity, one fit a sigma; the ratio is peer / ours."""
    random = np.random.default_rng(0)
    samples, points = (random.random((count, 784), dtype=np.float32) for _ in range(2))

    def peer() -> None:
        for sigma in PAPER_GRID:
            KernelDensity(bandwidth=sigma).fit(samples).score_samples(points)

    ours, theirs, ratio = paired(lambda: parzen_log_density(points, samples, PAPER_GRID), peer, rounds=3)
    return row("KernelDensity / Parzen, 10 sigmas", (ours, theirs, 1 / ratio), 100.0, "higher", "s")


BENCHMARKS = (step_against_handwritten, sharded_step, parzen_against_product, parzen_against_kernel_density)


def main() -> int:
    """Run all, print the table, write bench.json; 1 if a target is missed."""
    torch.set_num_threads(THREADS)
    rows = []
    print(f"{'':<42}{'ours':>10}{'peer':>10}  {'ratio':>8}  target")
    for benchmark in BENCHMARKS:
        line = benchmark()
        rows.append(line)
        sign = {"lower": "<=", "higher": ">="}[line["better"]]
        print(
            f"{line['name']:<42}{line['ours']:>10.3f}{line['peer']:>10.3f} {line['unit']:<2}{line['ratio']:>7.2f}  "
            f"{sign} {line['target']}"
        )
    Path("bench.json").write_text(json.dumps(rows, indent=1))
    missed = [line for line in rows if (line["ratio"] > line["target"]) != (line["better"] == "higher")]
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
