"""What faults are injected into: the pipeline's own server and data."""

from tests.pipelines.conftest import digits, mlflow_server

__all__ = ["digits", "mlflow_server"]
