"""CPUs and GPUs that Ray has lost: neither free nor held by anything that runs."""

import math
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

from gan_core.errors import CheckpointError
from pipelines.runtime import liveness, ray_session

LOST_SECONDS = 8.0  # what is lost for so long will not come back; bundles on their way take less


class Lost(CheckpointError):
    """What a stage needs was lost by a Ray of our own, which can be started anew."""

    def __init__(self, stage: str, what: str) -> None:
        super().__init__(
            "lost by Ray", stage, what, "a Ray that keeps it; what was saved is kept: run the same command again"
        )
        self.stage, self.what = stage, what

    def __reduce__(self) -> tuple[type["Lost"], tuple[str, str]]:  # type: ignore[override]
        return type(self), (self.stage, self.what)


def behind(error: Exception) -> str | None:
    """What a Ray of our own has lost, if that is why a stage failed."""
    return error.what if isinstance(error, Lost) else liveness.lost_part()


def unheld() -> str:
    """The CPUs and GPUs that are not free and that no placement group holds, for people; empty as a rule.

    Trials and training workers are in placement groups, which Ray can lose bundles of (ray-project/ray#64693).
    """
    import ray
    from ray.util import placement_group_table

    total, free = ray.cluster_resources(), ray.available_resources()
    held: Counter[str] = Counter()
    for group in placement_group_table().values():
        if group["state"] == "CREATED":
            for bundle in group["bundles"].values():
                held.update(bundle)
    missing = {name: total.get(name, 0) - free.get(name, 0) - held[name] for name in ("CPU", "GPU")}
    return ", ".join(f"{amount:g} {name}" for name, amount in missing.items() if amount > 1e-3)


def still_unheld() -> str:
    """What is unheld when the last stage's tasks and actors have had the time to go."""
    end = time.monotonic() + LOST_SECONDS
    while (lost := unheld()) and time.monotonic() < end:
        time.sleep(0.1)
    return lost


def own_groups() -> dict[str, Any]:
    """The placement groups that this driver and its actors have made, by their ids."""
    import ray
    from ray.util import placement_group_table

    driver = ray.get_runtime_context().get_job_id()  # a group's id ends with its driver's
    return {name: group for name, group in placement_group_table().items() if name.endswith(driver)}


class Losses:
    """Watches over a stage: a placement group may wait for what nobody holds."""

    def __init__(self, stage: str, log: Callable[[str], None]) -> None:
        self.stage, self.log = stage, log
        self.since: float | None = None
        self.checked_at = -math.inf
        self.logged = False

    def check(self) -> Lost | None:
        """What was lost, if it has been missing for seconds, nothing runs, and Ray can be started anew.

        On a cluster that was joined it is only logged, once: others may hold it, and other nodes be free.
        """
        if time.monotonic() - self.checked_at < 1:
            return None
        self.checked_at = time.monotonic()
        states = {group["state"] for group in own_groups().values()}
        lost = unheld() if "PENDING" in states and "CREATED" not in states else ""
        self.since = (self.since or time.monotonic()) if lost else None
        if self.since is None or time.monotonic() - self.since < LOST_SECONDS:
            return None
        if ray_session.started_here():
            return Lost(self.stage, lost)
        if not self.logged:
            self.logged = True
            self.log(
                f"{self.stage:<6} waiting; of the cluster {lost} are not free and held by no placement group: "
                "by others, or lost by Ray until it ends (ray-project/ray#64693)"
            )
        return None
