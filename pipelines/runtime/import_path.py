"""No process of a run imports from the folder one stands in, whatever lies there: `random.py`, `numpy.py`, `pipelines/`."""

import os
from typing import Any

SAFE_PATH = "PYTHONSAFEPATH"  # Python's own; any text that is not empty switches it on
OURS = "gan"


def leave_out_current_folder() -> None:
    """Let Python, wherever this process and its children start it, not put the current folder first in its path.

    Ray's daemons and workers start helpers with `python -c`, for which Python would.
    """
    if not os.environ.get(SAFE_PATH):
        os.environ[SAFE_PATH] = OURS


def environment_of_user() -> dict[str, str]:
    """The environment of a command that is the user's own: it imports as it would without us."""
    return {name: value for name, value in os.environ.items() if (name, value) != (SAFE_PATH, OURS)}


def ray_job(address: str) -> Any:
    """The `job_config` of ray.init(): this driver's workers import from where Python finds packages, and nowhere else.

    None for a driver of `ray://`, of whose folders Ray tells its workers nothing.
    """
    if address.startswith("ray://"):
        return None
    from ray.job_config import JobConfig

    class Job(JobConfig):  # type: ignore[misc]
        """Ray's, which else puts the driver's script's folder and its current one first in its workers' path."""

        def _runtime_env_has_working_dir(self) -> bool:
            return True  # all that Ray asks this for is whether to do so

    return Job()
