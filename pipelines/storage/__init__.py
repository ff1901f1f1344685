"""Folders on a disk or an object store: files written whole, verified checkpoints, locks, a run's metric log.

May import `config` and `gan_core`. What enters is an address and bytes, tensors or rows; what leaves is the same, whole
and verified, or an error that names the file.
"""

from pipelines.storage.checkpoints import checkpoint_names, latest_checkpoint, local_copy, save_checkpoint
from pipelines.storage.store import Storage, Tensors, check_storage

__all__ = [
    "Storage",
    "Tensors",
    "check_storage",
    "checkpoint_names",
    "latest_checkpoint",
    "local_copy",
    "save_checkpoint",
]
