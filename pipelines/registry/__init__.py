"""MLflow's model registry: look-up, registration, the gate, moves of the champion, retention."""

from pipelines.registry.lookup import CHALLENGER, CHAMPION, ModelVersion, Registry

__all__ = ["CHALLENGER", "CHAMPION", "ModelVersion", "Registry"]
