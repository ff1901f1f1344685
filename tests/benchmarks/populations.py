"""What populations save, each side in one run.

`python -m tests.benchmarks.populations search`: a whole search by Ray Tune with one trial for each candidate, and with one
population for each CPU (`tune.members: auto`), in turn.

`python -m tests.benchmarks.populations program --device cuda`: one batched program of P members against one GAN alone, the
same step, by `gan_core` and torch alone; digits' nets or the published ones, on images that are noise, since their values
cost nothing. Where there is no GPU, `--device cpu` shows what batching is worth there: less than nothing.
"""

import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import click
import numpy as np
import torch

from gan_core.algorithm1 import AlgorithmSettings
from gan_core.datasets import Examples
from gan_core.networks.dense import DenseDiscriminatorSettings, DenseGeneratorSettings, NetworkSettings
from gan_core.noise import NoiseSettings
from gan_core.population import Member, train_population
from gan_core.training import TrainingSettings, initial_state, train

DIGITS = NetworkSettings(
    generator=DenseGeneratorSettings((256, 256)), discriminator=DenseDiscriminatorSettings((96, 96), 4, 0.05)
)
NETS = {"digits": (DIGITS, 16, 64), "published": (NetworkSettings(), 100, 784)}  # nets, size of z, pixels
WARM_UP = 10  # steps


@click.group()
def benchmarks() -> None:
    """Measure one of the two."""


@benchmarks.command()
@click.option("--nets", type=click.Choice(list(NETS)), default="digits")
@click.option("--members", type=int, default=64)
@click.option("--steps", type=int, default=100)
@click.option("--rounds", type=int, default=3)
@click.option("--device", default="cpu")
def program(nets: str, members: int, steps: int, rounds: int, device: str) -> None:
    """A step of P members as one program against a step of one GAN: how many times as many member-steps a second."""
    if device == "cpu":
        torch.set_num_threads(1)  # as a trial's
    network, noise, pixels = NETS[nets]
    data = Examples(np.random.default_rng(0).random((2000, pixels), dtype=np.float32), np.zeros(2000, np.int64))
    base = TrainingSettings(network=network, noise=NoiseSettings("uniform", noise))
    rates = np.geomspace(5e-4, 4e-3, members)
    each = [
        replace(base, algorithm=AlgorithmSettings(optimizer="adam", generator_learning_rate=float(rate)))
        for rate in rates
    ]

    def alone() -> Callable[[int], None]:
        state = initial_state(each[0], data).to(torch.device(device))

        def to(end: int) -> None:
            for _ in train(each[0], data, state, end, lambda step: False):
                pass

        return to

    def together() -> Callable[[int], None]:
        whole = [Member(settings, initial_state(settings, data).to(torch.device(device))) for settings in each]

        def to(end: int) -> None:
            for _ in train_population(whole, data, end, lambda step: False):
                pass

        return to

    pairs = [(seconds(together(), steps, device), seconds(alone(), steps, device)) for _ in range(rounds)]
    ours, peer = (statistics.median(side) * 1000 for side in zip(*pairs, strict=True))
    ratios = sorted(members * alone / population for population, alone in pairs)
    click.echo(
        f"{nets}, {device}: {members} members {ours:.2f} ms a step, one alone {peer:.2f} ms: "
        f"{statistics.median(ratios):.2f} times as many member-steps a second ({ratios[0]:.2f} to {ratios[-1]:.2f})"
    )


def seconds(run_to: Callable[[int], None], steps: int, device: str) -> float:
    """Seconds of a step, after a warm-up."""
    run_to(WARM_UP)
    if device != "cpu":
        torch.cuda.synchronize()
    started = time.perf_counter()
    run_to(WARM_UP + steps)  # its last step is reported, which waits for the device
    return (time.perf_counter() - started) / steps


@benchmarks.command()
@click.argument("configuration", default="configs/digits.yaml")
@click.option("--candidates", type=int, default=64)
@click.option("--rungs", default="75,150,300")
@click.option("--rounds", type=int, default=1)
def search(configuration: str, candidates: int, rungs: str, rounds: int) -> None:
    """The wall time of a search whose trials are single candidates, and populations."""
    import tempfile

    from pipelines import config
    from pipelines.data.streaming import load
    from pipelines.runtime import ray_session
    from pipelines.stages.tune import tune_run
    from pipelines.storage import Storage

    given: dict[str, Any] = {
        "tune.candidates": candidates, "tune.rungs": list(map(int, rungs.split(","))), "tune.keep": 0.5,
        "tune.confirm": {"best": 1, "seeds": 1},
    }  # fmt: skip
    settings = config.override(config.load(configuration), given)
    found: dict[Any, list[float]] = {1: [], "auto": []}
    with tempfile.TemporaryDirectory() as folder, ray_session.cluster():
        dataset = load(settings.data, Storage.at(folder), lambda line: None, "benchmark")
        for number in range(rounds):
            for members, times in found.items():
                started = time.monotonic()
                place = Storage.at(folder).child(f"{number}-{members}")
                record = tune_run(
                    config.override(settings, {"tune.members": members}), dataset, place, lambda line: None
                )
                times.append(time.monotonic() - started)
                click.echo(
                    f"tune.members {members}: {times[-1]:.1f} s, candidate {record.candidate}, {record.log_likelihood:.4f} nats"
                )
    ratios = sorted(one / all_ for one, all_ in zip(found[1], found["auto"], strict=True))
    click.echo(
        f"{candidates} candidates: {statistics.median(ratios):.2f} times as fast ({ratios[0]:.2f} to {ratios[-1]:.2f})"
    )


if __name__ == "__main__":
    benchmarks()
