"""The process group of a training whose workers all run on this machine: none of them listens to the network."""

import os
import socket
import uuid
from typing import Any

import ray
from ray.train.torch import TorchConfig
from ray.train.torch.config import _set_torch_distributed_env_vars, _setup_torch_process_group, _TorchBackend


class LocalBackend(_TorchBackend):  # type: ignore[misc]
    """Ray's, but the workers meet in a file: torch's TCP store listens on every interface, whatever its address."""

    def on_start(self, worker_group: Any, backend_config: TorchConfig) -> None:
        """Connect the workers, over loopback."""
        gpus = worker_group.get_resources_per_worker().get("GPU", 0)
        folder = ray._private.worker._global_node.get_session_dir_path()  # Ray's own, which ends with it
        worker_group.execute(_set_torch_distributed_env_vars)
        worker_group.execute(_use_loopback)
        meeting_point = f"file://{folder}/process-group-{uuid.uuid4().hex}"
        started = [
            worker_group.execute_single_async(
                rank,
                _setup_torch_process_group,
                backend="nccl" if gpus else "gloo",
                world_rank=rank,
                world_size=len(worker_group),
                init_method=meeting_point,
                timeout_s=backend_config.timeout_s,
            )
            for rank in range(len(worker_group))
        ]
        ray.get(started)


class LocalTorchConfig(TorchConfig):  # type: ignore[misc]
    """Ray Train's settings of a process group on one machine."""

    @property
    def backend_cls(self) -> type[LocalBackend]:
        """What Ray Train lets set the group up."""
        return LocalBackend


def _use_loopback() -> None:
    """Let gloo and NCCL, which take the address of the machine's name or its first interface, take loopback's."""
    loopback = next((name for _, name in socket.if_nameindex() if name.startswith("lo")), None)
    for variable in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"):
        if loopback:
            os.environ.setdefault(variable, loopback)
