"""What faults are injected into: the pipeline's own server, data and finished run."""

from tests.pipelines.conftest import digits, finished, mlflow_server, small_yaml

__all__ = ["digits", "finished", "mlflow_server", "small_yaml"]
