"""What Ray Tune tells of a search's trials: rows as they arrive, failures, and when there is nothing to wait for."""

import math
import time
from collections.abc import Callable, Mapping
from typing import Any

from ray.tune import Callback

from pipelines.runtime.lost_resources import Losses, Lost
from pipelines.runtime.progress import Shortage

CHECK_SECONDS = 1.0  # between looks at the disk
MEASURED = (  # of a result; `budget` is of a search by updates
    "step", "budget", "status", "log_likelihood", "standard_error", "sigma", "coverage", "value", "updates", "seconds",
    "device_seconds", "stretch",
)  # fmt: skip
IDENTITY = ("candidate", "seed", "step", "stretch")


class OfThisProcess(Callback):  # type: ignore[misc]
    """A callback that Ray Tune writes down empty: it logs where the command does, and no search is restored from there."""

    def __getstate__(self) -> dict[str, Any]:
        return {}


class Collector(OfThisProcess):
    """Keeps every result as a row of the table, of a population one for each member, and logs it."""

    def __init__(
        self,
        stage: str,
        rows: list[dict[str, Any]],
        log: Callable[[str], None],
        check_storage: Callable[[], None],
    ) -> None:
        self.stage, self.rows, self.log, self.check_storage = stage, rows, log, check_storage
        self.failed = 0  # candidates

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        job = jobs_in(result["config"])[0]
        for found in result.get("rows", [{**job, **result}]):
            self._keep({"stage": self.stage, **{name: found[name] for name in (*job, *MEASURED) if name in found}})

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self.check_storage()
        candidates = [str(job["candidate"]) for job in jobs_in(trial.config)]
        self.failed += len(candidates)
        named = f"candidate{'s' if len(candidates) > 1 else ''} {', '.join(candidates)}"
        self.log(f"tune   {self.stage} {named} failed; see {trial.path}")

    def _keep(self, row: dict[str, Any]) -> None:
        if any(all(row[name] == other[name] for name in IDENTITY) for other in self.rows):
            return  # of a trial that was tried again
        self.rows.append(row)
        place = f"tune   {self.stage} candidate {row['candidate']} seed {row['seed']} step {row['step']}"
        if row["status"] == "diverged":
            self.log(f"{place}  diverged")
        else:
            self.log(
                f"{place}  log-likelihood {row['log_likelihood']:.1f} ± {row['standard_error']:.1f} nats  "
                f"coverage {row['coverage']:.2f}  {row['device_seconds']:.1f} device-seconds"
            )


class Watcher(OfThisProcess):
    """Ends a search that has no room any more: for its trials, which Ray Tune would wait for, or on its disk.

    Of a full disk Ray Tune learns by a trial's last failure, after minutes.
    """

    def __init__(self, shortage: Shortage, limit: float, losses: Losses, check_disk: Callable[[], None]) -> None:
        self.shortage, self.limit, self.losses, self.check_disk = shortage, limit, losses, check_disk
        self.lost: Lost | None = None
        self.checked_at = -math.inf

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        if time.monotonic() - self.checked_at >= CHECK_SECONDS:
            self.check_disk()
            self.checked_at = time.monotonic()
        if self.shortage.check() > self.limit:
            raise RuntimeError(self.shortage.missing)
        self.lost = self.losses.check()
        if self.lost:
            raise self.lost


def jobs_in(config: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The candidates of a trial's configuration: one, or a population's."""
    return list(config["population"]["members"] if "population" in config else [config["job"]])


def trial_name(trial: Any) -> str:
    """The name of a trial and of its folder, after its first candidate."""
    job, kind = jobs_in(trial.config)[0], "population-of-" if "population" in trial.config else ""
    return f"{kind}candidate-{job['candidate']}-seed-{job['seed']}"
