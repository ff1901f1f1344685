"""Where Ray Tune's trials are placed: no placement group is removed while Ray is still creating it."""

import time
from collections import Counter
from typing import Any

import ray
from ray.air.execution import PlacementGroupResourceManager
from ray.tune.execution import tune_controller
from ray.util import remove_placement_group

CREATED_WITHIN_S = 10.0


class PatientPlacement(PlacementGroupResourceManager):  # type: ignore[misc]
    """Ray Tune's own, but a group that is requested and no longer required is kept for the next trial.

    Ray Tune requests a group for each trial that waits, and cancels the request when an actor becomes free
    for it: four or five times in a search of six. A group that is removed while its bundles are being
    prepared can take their CPUs and GPUs with it (ray-project/ray#64693).
    """

    def __init__(self, update_interval_s: float = 0.1) -> None:
        super().__init__(update_interval_s)
        self._surplus: Counter[Any] = Counter()  # of the groups requested

    def request_resources(self, resource_request: Any) -> None:
        """Request a group, unless one was requested that no trial needs."""
        if self._surplus[resource_request]:
            self._surplus[resource_request] -= 1
        else:
            super().request_resources(resource_request)

    def cancel_resource_request(self, resource_request: Any) -> None:
        """Need one group less: it is removed when it has been created."""
        self._surplus[resource_request] += 1
        self.update_state()

    def update_state(self) -> None:
        """Learn which groups have been created, and remove those that no trial needs."""
        super().update_state()
        for request, surplus in self._surplus.items():
            for _ in range(surplus - len(self._request_to_staged_pgs[request])):
                group = self._request_to_ready_pgs[request].pop()
                del self._pg_to_request[group]
                remove_placement_group(group)
                self._surplus[request] -= 1

    def clear(self) -> None:
        """Remove every group, after those that are being created; on a cluster that is full not all ever are."""
        end = time.monotonic() + CREATED_WITHIN_S
        for group in [group for groups in self._request_to_staged_pgs.values() for group in groups]:
            if ray.is_initialized():
                group.wait(timeout_seconds=max(0, end - time.monotonic()))
        super().clear()


def place_patiently() -> None:
    """Have Ray Tune place trials so; it offers no other way to choose."""
    tune_controller.PlacementGroupResourceManager = PatientPlacement
