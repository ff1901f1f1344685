"""`make bench`: our parts against a peer on the same work in the same run, as ratios."""

import http.client
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from sklearn.neighbors import KernelDensity

from gan_core.algorithm1 import AlgorithmSettings
from gan_core.datasets import Dataset, Examples
from gan_core.metrics.parzen import PAPER_GRID, parzen_log_density
from gan_core.portable import PortableGenerator
from gan_core.training import TrainingSettings, initial_state, train
from pipelines import config
from pipelines.registry.model_version import ModelVersion
from pipelines.runtime import ray_session
from pipelines.serving.app import ServeSettings, service
from pipelines.serving.http_server import listening_socket
from pipelines.serving.requests import SampleRequest, answer_request
from pipelines.stages.train import train_run
from pipelines.storage import Storage
from pipelines.storage.metric_log import read_history
from tests.benchmarks.peers import broadcast_parzen, handwritten_loop
from tests.benchmarks.phases import quick_start_phases

THREADS = 2
ROUNDS = 5
WARM_UP = 100  # steps


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


def parzen_against_broadcast(count: int = 500) -> dict:
    """Ten sigmas against the original's algorithm, which broadcasts differences; the ratio is peer / ours."""
    random = np.random.default_rng(0)
    samples, points = (random.random((count, 784), dtype=np.float32) for _ in range(2))
    ours, theirs, ratio = paired(
        lambda: parzen_log_density(points, samples, PAPER_GRID),
        lambda: broadcast_parzen(points, samples, PAPER_GRID),
        rounds=3,
    )
    return row("broadcast algorithm / Parzen, 10 sigmas", (ours, theirs, 1 / ratio), None, "higher", "s")


def parzen_memory(samples: int = 200_000, points: int = 10_000) -> dict:
    """What a score adds to the process's peak, against 1 GiB, with samples of 598 MiB."""
    code = f"""
import resource, numpy as np
from gan_core.metrics.parzen import parzen_log_density
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
samples, points = (np.random.default_rng(0).random((n, 784), dtype=np.float32) for n in ({samples}, {points}))
parzen_log_density(points[:10], samples[:10], [0.2])
before = peak()
parzen_log_density(points[:500], samples, [0.1, 0.2])
print(peak() - before)
"""
    grown = float(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)
    return row("Parzen, memory beside its inputs / 1 GiB", (grown, 1024.0, grown / 1024), 1.0, "lower", "MB")


def help_start() -> dict:
    """`gan --help` against half a second."""
    command = [sys.executable, "-m", "pipelines.cli", "--help"]
    seconds = statistics.median(
        timed(lambda: subprocess.run(command, stdout=subprocess.DEVNULL, check=True)) for _ in range(ROUNDS)
    )
    return row("gan --help / 0.5 s", (seconds, 0.5, seconds / 0.5), 1.0, "lower", "s")


def ray_train(workers: int, threads: int, steps: int) -> float:
    """Steps a second of a Ray Train job on the published MNIST networks, checkpoints and reports included."""
    with tempfile.TemporaryDirectory() as folder:
        configuration = config.build(
            {
                "data": {"name": "digits"},  # named only: the images are random, of MNIST's size
                "algorithm": {"steps": steps + WARM_UP},
                "train": {
                    "workers": workers,
                    "virtual_shards": workers,
                    "threads_per_worker": threads,
                    "report_every": 50,
                },
            }
        )
        storage = Storage.at(folder)
        train_run(configuration, _mnist_sized(), storage, lambda text: None)
        at = {row["step"]: row["time_ms"] for row in read_history(storage.child("history"))}
    return steps / (at[steps + WARM_UP] - at[WARM_UP]) * 1000


def ray_train_against_bare(steps: int = 1000) -> dict:
    """One Ray Train worker against the same loop in a plain process, images a second."""
    settings = config.build({"algorithm": {"steps": steps + WARM_UP}}).training()
    data = _mnist_sized().train
    with ray_session.cluster():
        ours = ray_train(1, THREADS, steps)
    times = {}
    for report in train(settings, data, initial_state(settings, data), steps + WARM_UP, lambda step: step % 50 == 0):
        times[report.step] = time.perf_counter()
    bare = steps / (times[steps + WARM_UP] - times[WARM_UP])
    return row("Ray Train, one worker / bare loop", (ours * 100, bare * 100, ours / bare), 0.95, "higher", "/s")


def two_workers_against_two_threads(steps: int = 200) -> dict:
    """Two workers of one thread against one of two, images a second."""
    with ray_session.cluster():
        workers, threads = ray_train(2, 1, steps), ray_train(1, 2, steps)
    return row("2 workers x 1 thread / 1 x 2", (workers * 100, threads * 100, workers / threads), None, "higher", "/s")


def serve_requests(clients: int, requests: int = 300, count: int = 16) -> list[dict]:
    """`gan serve` with this many clients against the generator called directly: requests a second, and two quantiles.

    The published MNIST generator, untrained, 16 samples a request, as npy; the clients are threads of this
    process, each with one connection that it keeps.
    """
    published = TrainingSettings()
    generator = initial_state(published, _mnist_sized().train).generator.eval()
    model = PortableGenerator(generator, published.noise, published.network.generator, (28, 28))
    version = ModelVersion("gan-bench", 1, (), {}, "")
    body = json.dumps({"count": count, "seed": 1}).encode()
    held = listening_socket("127.0.0.1", 0)
    port = held.getsockname()[1]

    def client(many: int) -> list[float]:
        connection, seconds = http.client.HTTPConnection("127.0.0.1", port), []
        for _ in range(many):
            start = time.perf_counter()
            connection.request("POST", "/samples", body)
            answer = connection.getresponse()
            answer.read()
            assert answer.status == 200, answer.status
            seconds.append(time.perf_counter() - start)
        return seconds

    settings = ServeSettings(port=port, max_waiting=2 * clients)
    with ray_session.cluster(), service(settings, version.name, held) as running, ThreadPoolExecutor(clients) as pool:
        running.show(version, model)
        client(20)
        start = time.perf_counter()
        each = [seconds for found in pool.map(client, [requests // clients] * clients) for seconds in found]
        ours = len(each) / (time.perf_counter() - start)
    direct = [timed(lambda: answer_request(model, SampleRequest(count, 1))) for _ in range(requests)][20:]
    name = f"gan serve, {clients} client{'s' if clients > 1 else ''} / direct call"
    peer = len(direct) / sum(direct)
    rows = [row(f"{name}, requests", (ours, peer, ours / peer), None, "higher", "/s")]
    for quantile in (0.5, 0.99):
        one, other = (float(np.quantile(times, quantile)) * 1000 for times in (each, direct))
        rows.append(row(f"{name}, p{quantile * 100:.0f}", (one, other, one / other), None, "lower", "ms"))
    return rows


def serve_requests_of_one_client() -> list[dict]:
    """One client at a time."""
    return serve_requests(1)


def serve_requests_of_eight_clients() -> list[dict]:
    """Eight at once."""
    return serve_requests(8)


def _mnist_sized() -> Dataset:
    images = np.random.default_rng(0).random((2400, 784), dtype=np.float32)
    examples = [Examples(part, np.zeros(len(part), np.int64)) for part in np.split(images, [2100, 2200, 2300])]
    return Dataset("digits", (28, 28), *examples)


BENCHMARKS = (
    step_against_handwritten,
    sharded_step,
    parzen_against_product,
    parzen_against_kernel_density,
    parzen_against_broadcast,
    parzen_memory,
    help_start,
    quick_start_phases,
    ray_train_against_bare,
    two_workers_against_two_threads,
    serve_requests_of_one_client,
    serve_requests_of_eight_clients,
)


def main() -> int:
    """Run all (or those named), print the table, write bench.json; 1 if a target is missed."""
    torch.set_num_threads(THREADS)
    rows = []
    print(f"{'':<42}{'ours':>10}{'peer':>10}  {'ratio':>8}  target")
    chosen = [benchmark for benchmark in BENCHMARKS if not sys.argv[1:] or benchmark.__name__ in sys.argv[1:]]
    for benchmark in chosen:
        found = benchmark()
        for line in found if isinstance(found, list) else [found]:
            rows.append(line)
            sign = {"lower": "<=", "higher": ">="}[line["better"]]
            print(
                f"{line['name']:<42}{line['ours']:>10.3f}{line['peer']:>10.3f} {line['unit']:<2}{line['ratio']:>7.2f}  "
                + ("reported" if line["target"] is None else f"{sign} {line['target']}"),
                flush=True,
            )
    Path("bench.json").write_text(json.dumps(rows, indent=1))
    aimed = [line for line in rows if line["target"] is not None]
    missed = [line for line in aimed if (line["ratio"] > line["target"]) != (line["better"] == "higher")]
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
