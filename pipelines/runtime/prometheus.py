"""A training's metrics as gauges of Ray's own Prometheus exporter, beside the cluster's: `ray_gan_step{run="..."}`."""

from collections.abc import Mapping
from typing import Any

PREFIX = "gan_"


class Gauges:
    """The metrics of one run's training, by name, as they were last reported."""

    def __init__(self, run: str) -> None:
        self.run = run
        self.gauges: dict[str, Any] = {}

    def set(self, metrics: Mapping[str, float]) -> None:
        """Set each metric's gauge."""
        from ray.util.metrics import Gauge

        for name, value in metrics.items():
            if name not in self.gauges:
                description = f"{name.replace('_', ' ')} of the training's last report"
                self.gauges[name] = Gauge(PREFIX + name, description, tag_keys=("run",))
            self.gauges[name].set(value, tags={"run": self.run})
