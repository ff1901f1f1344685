"""The model registry: registration, look-up, the promotion gate, the champion's history, retention, and runs' metrics.

MLflow keeps it all, behind the Protocols of `backend`: another registry is one class and a line in `BACKENDS`.
May import `runtime`, `evaluation`, `storage`, `config` and `gan_core`. What enters is a model with its tags; what leaves
are versions, verdicts and aliases.
"""

from pipelines.registry.lookup import Lookup
from pipelines.registry.registry import CHALLENGER, CHAMPION, ModelVersion, Registry

__all__ = ["CHALLENGER", "CHAMPION", "Lookup", "ModelVersion", "Registry"]
