"""MLflow: its client and tracking, the model registry, registration, the promotion gate, the champion's history.

May import `runtime`, `evaluation`, `storage`, `config` and `gan_core`. What enters is a model with its tags; what leaves
are versions, verdicts and aliases.
"""

from pipelines.registry.registry import CHALLENGER, CHAMPION, ModelVersion, Registry

__all__ = ["CHALLENGER", "CHAMPION", "ModelVersion", "Registry"]
