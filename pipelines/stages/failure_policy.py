"""Which failures of a training's workers Ray Train meets with new workers: all but a disk without room."""

import errno
from collections.abc import Iterator
from typing import Any

from ray.train import TrainingFailedError
from ray.train.v2._internal.execution.failure_handling import DefaultFailurePolicy, FailureDecision

from gan_core.errors import CheckpointError, GanError

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class DiskFull(CheckpointError):
    """A disk has no room for what was to be written."""


def as_worker_raises(error: CheckpointError) -> CheckpointError:
    """A storage's refusal as it leaves a worker: its kind says what its cause, which does not go with it, said."""
    full = isinstance(error.__cause__, OSError) and error.__cause__.errno in NO_ROOM
    return DiskFull(*error.__reduce__()[1]) if full else error


def own_errors(failed: Any) -> Iterator[GanError]:
    """The errors of ours that the workers of a training have raised, without Ray's wrappings."""
    for failure in getattr(failed, "worker_failures", {}).values():
        for cause in (failure, getattr(failure, "cause", None), failure.__cause__):
            if isinstance(cause, GanError):
                yield cause


class FailurePolicy(DefaultFailurePolicy):  # type: ignore[misc]
    """Ray's, but a full disk ends the training at once: new workers would repeat their steps up to it."""

    def make_decision(self, training_failed_error: TrainingFailedError) -> FailureDecision:
        """Whether to go on with new workers."""
        if any(isinstance(error, DiskFull) for error in own_errors(training_failed_error)):
            return FailureDecision.RAISE
        return super().make_decision(training_failed_error)
