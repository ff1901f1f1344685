"""The parts of a Ray of our own: those that one machine needs, on its loopback address."""

import contextlib
from collections.abc import Iterator
from functools import partial


@contextlib.contextmanager
def of_one_machine() -> Iterator[None]:
    """Let a Ray that starts in the block be without what only a cluster needs, and out of reach of other machines.

    All its parts listen on 127.0.0.1, as they do by themselves on macOS: Ray's own setting of a node's address takes
    127.0.0.1 for a mistake, and replaces it by the machine's. There is no log monitor, for nobody reads what it sends, no
    autoscaler, and no server of a dashboard: `ray start` has options for that, ray.init() has none.
    """
    from ray._private import node, parameter, ray_constants

    before = ray_constants.ENABLE_RAY_CLUSTER, parameter.RayParams, node.Node.start_api_server
    ray_constants.ENABLE_RAY_CLUSTER = False
    parameter.RayParams = partial(parameter.RayParams, include_log_monitor=False, no_monitor=True)
    node.Node.start_api_server = lambda *arguments, **named: None
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER, parameter.RayParams, node.Node.start_api_server = before
