"""What a driver says while its workers train: the step, the speed, the time left, and what they wait for."""

import contextlib
import math
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from gan_core.errors import GanError
from pipelines.runtime.lost_resources import Losses, Lost
from pipelines.runtime.ray_session import resources
from pipelines.storage import Storage

LIVE = "live.json"  # rank 0's last line, in the run's folder
FOLLOW_SECONDS = 15.0
SAY_SECONDS = 5.0


class Shortage:
    """What a stage needs and the cluster has no more, since it has lost a node: said when it begins and ends."""

    def __init__(self, stage: str, wanted: Mapping[str, float], say: Callable[[str], None]) -> None:
        self.stage, self.wanted, self.say = stage, wanted, say
        self.missing, self.since, self.seconds, self.looked = "", 0.0, 0.0, -math.inf

    def look(self) -> float:
        """Ask the cluster, and return for how many seconds something has been missing; 0 if nothing is."""
        if time.monotonic() - self.looked < 1:
            return self.seconds
        there = resources()
        missing = "; ".join(
            f"{amount:g} {name}, the cluster has {there.get(name, 0):g}"
            for name, amount in self.wanted.items()
            if amount > there.get(name, 0)
        )
        if missing != self.missing:
            self.since = self.since if self.missing and missing else time.monotonic()
            self.missing = missing
            self.say(f"{self.stage:<6} " + (f"waiting for {missing}" if missing else "the cluster has enough again"))
        self.looked = time.monotonic()
        self.seconds = self.looked - self.since if missing else 0.0
        return self.seconds


def progress_line(row: Mapping[str, float], steps: int) -> str:
    """A report of a training of so many steps, for people: V(D, G), or D's loss where the objective has no V."""
    left = (steps - row["step"]) / row["steps_per_second"]
    loss = f"V(D,G) {row['value']:.3f}" if "value" in row else f"D's loss {row['discriminator_loss']:.3f}"
    return (
        f"train  step {row['step']}/{steps}  {loss}  D right on real {row['real_accuracy']:.0%}, "
        f"fake {row['fake_accuracy']:.0%}  {row['images_per_second']:,.0f} images/s  about {left:.0f} s left"
    )


class Progress:
    """Says, while the driver waits, what rank 0 last showed, and which resources the cluster has lost.

    If Ray itself has lost them, it ends Ray Train's `controller`, which would wait for them, and keeps `lost`.
    """

    def __init__(
        self,
        run: Storage,
        steps: int,
        wanted: Mapping[str, float],
        say: Callable[[str], None],
        follow: Callable[[], None],
    ) -> None:
        self.run, self.steps, self.say, self.follow = run, steps, say, follow
        self.shortage, self.losses = Shortage("train", wanted, say), Losses("train", say)
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
        last, said, followed = -1, 0.0, time.monotonic()
        row: dict[str, Any] = {"step": -1}
        while not self.done.wait(1.0):
            if time.monotonic() - followed >= FOLLOW_SECONDS:
                self.follow()
                followed = time.monotonic()
            self._look_for_losses()
            self.shortage.look()
            with contextlib.suppress(GanError):  # a storage that fails once is asked again
                row = self.run.read_json(LIVE) or row
            if row["step"] > last and time.monotonic() - said >= SAY_SECONDS:
                last, said = row["step"], time.monotonic()
                self.say(progress_line(row, self.steps))

    def _look_for_losses(self) -> None:
        import ray

        self.lost = self.lost or self.losses.look()
        if self.lost and self.controller is not None:
            ray.kill(self.controller)
            self.controller = None
