"""What only a cluster's autoscaler knows: whether nodes it could add would hold what a stage asks for."""

import time
from collections.abc import Mapping, Sequence
from typing import Any

VERDICT_SECONDS = 60.0  # an autoscaler looks at what is asked for every 5 s


def present() -> bool:
    """Whether a cluster is joined that has an autoscaler which tells what it could not do: Ray's second one."""
    import ray
    from ray.autoscaler.v2.utils import is_autoscaler_v2

    return ray.is_initialized() and bool(is_autoscaler_v2(fetch_from_server=True, gcs_client=_control_service()))


def could_hold(bundles: Sequence[Mapping[str, float]]) -> bool:
    """Whether the cluster could hold these bundles of resources at once, its autoscaler's nodes included.

    Asked by a placement group, as the stages ask themselves, so nodes are on their way with the answer. No is said where it
    is certain: where others hold resources that will be free again, or no answer comes in time, it is yes.
    """
    import ray
    from ray.core.generated.autoscaler_pb2 import GetClusterStatusReply
    from ray.util import placement_group, remove_placement_group

    service, end = _control_service(), time.monotonic() + VERDICT_SECONDS
    free, total = ray.available_resources(), ray.cluster_resources()
    idle = all(free.get(resource, 0) == total.get(resource, 0) for resource in ("CPU", "GPU"))
    group, requested_at = placement_group([dict(bundle) for bundle in bundles]), None
    try:
        while time.monotonic() < end and not group.wait(timeout_seconds=0.5):
            status = GetClusterStatusReply.FromString(service.get_cluster_status(timeout_s=10))
            state, verdict = status.cluster_resource_state, status.autoscaling_state
            if requested_at is None and _has(state.pending_gang_resource_requests, group.id.hex()):
                requested_at = state.cluster_resource_state_version
            if requested_at is not None and verdict.last_seen_cluster_resource_state_version >= requested_at:
                return not (idle and _has(verdict.infeasible_gang_resource_requests, group.id.hex()))
        return True
    finally:
        remove_placement_group(group)


def _has(requests: Sequence[Any], group: str) -> bool:
    return any(group in request.details for request in requests)


def _control_service() -> Any:
    import ray
    from ray._raylet import GcsClient  # type: ignore[attr-defined]

    return GcsClient(address=ray.get_runtime_context().gcs_address)
