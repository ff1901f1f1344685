"""Ray for a run's stages: joined when the first needs it, started anew where one of ours has lost something or died."""

import contextlib
import itertools
import threading
import time
from collections.abc import Callable
from typing import TypeVar

from pipelines.config import Configuration
from pipelines.runtime import exit_codes, liveness, lost_resources, own_session, ray_session, supervisor

Result = TypeVar("Result")


class Cluster:
    """The cluster of RAY_ADDRESS, or a Ray of our own on this machine, until it is left."""

    def __init__(self, run: str, configuration: Configuration, log: Callable[[str], None]) -> None:
        self.run, self.configuration, self.log = run, configuration, log
        self._session = contextlib.ExitStack()

    def join(self) -> None:
        """Start or join Ray, once, and check that the run fits; a Ray of our own that lost something starts anew.

        Raises:
            ConfigurationError: If there is no Ray, or it has no room for the run.
        """
        import ray

        if ray_session.started_here():
            if (lost := liveness.lost_part()) is not None:  # since the last stage
                self._lose(lost)
            elif lost := lost_resources.still_unheld():
                self._lose(f"{lost} neither free nor held by anything that runs")
        if not ray.is_initialized():
            self.log(f"ray    {f'joins {named}' if (named := ray_session.address()) else 'starts on this machine'}")
            self._session.enter_context(ray_session.cluster(self.log))
        ray_session.check_resources(self.configuration)

    def leave(self) -> None:
        """End a Ray of our own, or the connection to another."""
        self._session.close()
        supervisor.resumes(None)

    def call(self, work: Callable[[], Result]) -> Result:
        """Do a stage's work on the cluster; again, from what it has saved, if a Ray of our own loses what it needs.

        Raises:
            Lost, RayLost: If it did so more often than `train.max_failures`.
        """
        for restarts in itertools.count(supervisor.times_begun_anew()):
            left = restarts < self.configuration.train.max_failures
            self.join()
            supervisor.resumes(self.run if left and ray_session.started_here() else None)
            try:
                with liveness.watched(self._begin_anew if left and supervisor.is_supervised() else None):
                    return work()
            except Exception as error:
                lost = lost_resources.behind(error)
                if lost is None or not left or exit_codes.is_ending():
                    if isinstance(error, liveness.RayLost) and exit_codes.is_own_process():
                        own_session.end()  # a dead one cannot be left: that takes a minute, and then ends this process
                    raise
            self._lose(lost)
        raise AssertionError("unreachable")

    def _lose(self, lost: str) -> None:
        """Leave a Ray of our own that is of no use any more; one that is dead may keep whoever asks it."""
        self.log(f"ray    lost: {lost}; it is started anew")
        stuck = threading.Timer(liveness.LEAVE_SECONDS, self._end_for_anew)
        if supervisor.is_supervised():
            stuck.daemon = True
            stuck.start()
        self.leave()
        stuck.cancel()

    def _begin_anew(self, lost: str) -> None:
        self.log(f"ray    lost: {lost}; the command begins anew")
        self._end_for_anew()

    def _end_for_anew(self) -> None:
        while exit_codes.is_ending():  # a signal's own end is near
            time.sleep(liveness.POLL_SECONDS)
        own_session.end()
        supervisor.begin_anew(self.run)
