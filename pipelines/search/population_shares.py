"""What each population trains next: dealt on the driver after a rung, and waited for where the population is."""

import heapq
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pipelines.storage import Storage

Job = dict[str, Any]  # a candidate's number, its seed and its settings by dotted name
PATIENCE_S = 60.0  # then a population that waits makes room for one that cannot start
POLL_S = 0.2


@dataclass(frozen=True)
class Shares:
    """Members by rung and trial, in a folder of the run's storage."""

    folder: Storage

    def publish(self, rung: int, trial: str, members: list[Job]) -> None:
        """Say what a trial is to train after a rung (counted from 1): nothing, if it is out."""
        self.folder.write_json(_name(rung, trial), members)

    def wait(self, rung: int, trial: str, until: float | None = None) -> list[Job] | None:
        """What a trial is to train after a rung; None, if that is not known in time (`until`, seconds since the epoch)."""
        end = min(time.time() + PATIENCE_S, float("inf") if until is None else until)
        while (found := self.folder.read_json(_name(rung, trial))) is None:
            if time.time() > end:
                return None
            time.sleep(POLL_S)
        return list(found)


def deal(members: Sequence[tuple[Job, float]], shares: int) -> list[list[Job]]:
    """Members (each with its cost) in at most so many shares, none empty, of about equal cost: the costliest first."""
    dealt: list[list[Job]] = [[] for _ in range(min(shares, len(members)))]
    heap = [(0.0, number) for number in range(len(dealt))]
    for job, cost in sorted(members, key=lambda member: -member[1]):
        total, number = heapq.heappop(heap)
        dealt[number].append(job)
        heapq.heappush(heap, (total + cost, number))
    return [sorted(share, key=lambda job: (job["candidate"], job["seed"])) for share in dealt]


def _name(rung: int, trial: str) -> str:
    return f"{rung}-{trial}.json"
