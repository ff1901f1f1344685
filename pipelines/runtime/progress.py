"""Progress of a stage while its driver waits: the last report, and what the cluster has too little of."""

import contextlib
import math
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from gan_core.errors import GanError
from pipelines.runtime.lost_resources import Losses, Lost
from pipelines.runtime.ray_session import resources
from pipelines.storage import Storage, run_layout

CALLBACK_SECONDS = 15.0
LOG_SECONDS = 5.0


class Shortage:
    """What a stage requires and the cluster has no more, since it has lost a node: logged when it begins and ends."""

    def __init__(self, stage: str, required: Mapping[str, float], log: Callable[[str], None]) -> None:
        self.stage, self.required, self.log = stage, required, log
        self.missing, self.since, self.seconds, self.checked_at = "", 0.0, 0.0, -math.inf

    def check(self) -> float:
        """Ask the cluster, and return for how many seconds something has been missing; 0 if nothing is."""
        if time.monotonic() - self.checked_at < 1:
            return self.seconds
        available = resources()
        missing = "; ".join(
            f"{amount:g} {name}, the cluster has {available.get(name, 0):g}"
            for name, amount in self.required.items()
            if amount > available.get(name, 0)
        )
        if missing != self.missing:
            self.since = self.since if self.missing and missing else time.monotonic()
            self.missing = missing
            self.log(f"{self.stage:<6} " + (f"waiting for {missing}" if missing else "the cluster has enough again"))
        self.checked_at = time.monotonic()
        self.seconds = self.checked_at - self.since if missing else 0.0
        return self.seconds


class Progress:
    """Logs, while the driver waits, rank 0's last report, and which resources the cluster has lost.

    If Ray itself has lost them, it ends Ray Train's `controller`, which would wait for them, and keeps `lost`.
    """

    def __init__(
        self,
        folder: Storage,
        stage: str,
        line: Callable[[Mapping[str, Any]], str],
        required: Mapping[str, float],
        log: Callable[[str], None],
        on_progress: Callable[[], None] | None = None,
    ) -> None:
        """`folder` has the training's live row, and `line` shows it; `on_progress` is called every few seconds."""
        self.folder, self.stage, self.line, self.log, self.on_progress = folder, stage, line, log, on_progress
        self.shortage, self.losses = Shortage(stage, required, log), Losses(stage, log)
        self.controller: Any = None
        self.lost: Lost | None = None
        self.done = threading.Event()
        self.thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> "Progress":
        self.thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.done.set()
        self.thread.join()

    def _watch(self) -> None:
        last, logged_at, called_at = -1, 0.0, time.monotonic()
        row: dict[str, Any] = {"step": -1}
        while not self.done.wait(1.0):
            if self.on_progress and time.monotonic() - called_at >= CALLBACK_SECONDS:
                self.on_progress()
                called_at = time.monotonic()
            self._check_for_losses()
            self.shortage.check()
            with contextlib.suppress(GanError):  # a storage that fails once is asked again
                row = self.folder.read_json(run_layout.LIVE) or row
            if row["step"] > last and time.monotonic() - logged_at >= LOG_SECONDS:
                last, logged_at = row["step"], time.monotonic()
                self.log(f"{self.stage:<6} {self.line(row)}")

    def _check_for_losses(self) -> None:
        import ray

        self.lost = self.lost or self.losses.check()
        if self.lost and self.controller is not None:
            ray.kill(self.controller)
            self.controller = None
