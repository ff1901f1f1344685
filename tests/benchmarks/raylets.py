"""A search's wall time on 1, 2 and 3 raylets of one CPU each, all on this machine, and the bits that come out of it.

    python -m tests.benchmarks.raylets configs/digits.yaml --rounds 3

Each row's search is the same, on a cluster of its own; the seconds are the stage's own, from the first word of the search
to the choice, without the cluster's start. What is trained after it, by one worker and the configuration's own settings,
has the same weights in every row, or the command ends with exit code 1. Raylets share the machine's cores: more of them
than cores cannot gain anything.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import click

from pipelines import config
from pipelines.runtime import ray_session

MEMORY = 150 * 2**20  # bytes of each raylet's object store


def gan(command: str, path: str, address: str, folder: Path, overrides: tuple[str, ...]) -> dict:
    """What the command of a stage answers, on a cluster, its run named after it."""
    settings = [part for one in (*overrides, "train.workers=1") for part in ("--set", one)]
    words = [command, path, "--name", command, "--storage", str(folder), *settings, "--json", "-q"]
    environment = {**os.environ, "RAY_ADDRESS": address}
    done = subprocess.run(
        [sys.executable, "-m", "pipelines.cli", *words], env=environment, stdout=subprocess.PIPE, text=True, check=True
    )
    return json.loads(done.stdout.splitlines()[-1])


def measured(raylets: int, path: str, overrides: tuple[str, ...]) -> tuple[float, str]:
    """Seconds of the search, and the digest of the weights that are trained after it."""
    from ray.cluster_utils import Cluster  # after the environment, which Ray reads when it is imported

    with tempfile.TemporaryDirectory(prefix="gan-", ignore_cleanup_errors=True) as place:
        (Path(place) / "ray").mkdir()
        os.environ["RAY_TMPDIR"] = place  # where Ray notes which cluster was the last: nobody else's business
        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "object_store_memory": MEMORY})
        try:
            for _ in range(raylets):
                cluster.add_node(num_cpus=1, object_store_memory=MEMORY)
            cluster.wait_for_nodes()
            searched = gan("tune", path, cluster.address, Path(place) / "runs", overrides)
            trained = gan("train", path, cluster.address, Path(place) / "runs", overrides)
        finally:
            cluster.shutdown()
    return searched["seconds"], trained["weights_sha256"]


@click.command(help=__doc__)
@click.argument("path")
@click.option("--set", "overrides", multiple=True, metavar="a.b=c")
@click.option("--raylets", type=click.IntRange(min=1), default=3, show_default=True, help="1 to as many.")
@click.option("--rounds", type=click.IntRange(min=1), default=3, show_default=True)
def main(path: str, overrides: tuple[str, ...], raylets: int, rounds: int) -> None:
    ray_session.prepare_environment()
    candidates = config.load(path, overrides).tune.candidates
    seconds: dict[int, list[float]] = {count: [] for count in range(1, raylets + 1)}
    digests: dict[int, set[str]] = {count: set() for count in seconds}
    for turn in range(rounds):
        for count in sorted(seconds, reverse=bool(turn % 2)):  # there and back, so that a drift favours nobody
            took, digest = measured(count, path, overrides)
            seconds[count].append(took)
            digests[count].add(digest)
            print(f"round {turn + 1}  {count} raylets  {took:.1f} s  weights {digest[:12]}", flush=True)
    medians = {count: statistics.median(found) for count, found in seconds.items()}
    print(f"\n{len(os.sched_getaffinity(0))} cores, {candidates} candidates, median of {rounds}")
    print("raylets  search s  candidates/minute  1 raylet / this  weights")
    for count, median in medians.items():
        print(
            f"{count:7d}  {median:8.1f}  {60 * candidates / median:17.1f}  {medians[1] / median:15.2f}  "
            + " ".join(sorted(digest[:12] for digest in digests[count]))
        )
    if len(set().union(*digests.values())) > 1:
        raise click.ClickException("the weights differ")


if __name__ == "__main__":
    main()
