"""The results of a search: every score and the weights behind it, in the run's storage as they arrive.

A segment is a training under one set of settings: from the beginning or, where population based
training has moved weights and changed settings, from a step of another segment. Its name is its
content, so a search that is started again, or with more candidates, finds what it has already done,
and nothing else. This is the truth about a search; Ray Tune's own folder is only its working memory.
In files a segment is called `stretch`, and the store `findings`: so older versions named them.
"""

import hashlib
import io
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float

from gan_core.checkpoint import checkpoint_step, read_checkpoint
from gan_core.errors import CheckpointError
from pipelines.config import digest
from pipelines.storage import Storage, Tensors, checkpoint_names, local_copy, run_layout, save_checkpoint
from pipelines.storage.metric_log import append_history, read_history

logger = logging.getLogger(__name__)
ABOUT, CURVE, LOG_DENSITIES = "about.json", "curve", "log-densities"


@dataclass(frozen=True)
class TrainingSegment:
    """A candidate's training under one set of settings: its rows, and the checkpoints at its rungs."""

    results: Storage
    name: str
    kept: int = 2  # checkpoints: the newest, and what remains if it is damaged
    unsaved: list[dict[str, Any]] = field(default_factory=list, compare=False)  # metrics since the last row

    @property
    def folder(self) -> Storage:
        """Where it is kept."""
        return self.results.child(self.name)

    @property
    def about(self) -> dict[str, Any]:
        """Its job (candidate, seed and settings) and its origin: another segment's name and step, or None."""
        return dict(self.folder.read_json(run_layout.SEGMENT))

    def rows(self) -> list[dict[str, Any]]:
        """The scores so far, by step, up to the first whose log-densities are not there whole."""
        rows = []
        for row in read_history(self.folder, stop_at_damage=True):
            try:
                if row["status"] == "finite":
                    self.log_densities(row["step"])
            except CheckpointError as error:
                logger.warning(f"{error}; training that part again")
                break
            rows.append(row)
        return rows

    def commit(self, row: Mapping[str, Any], weights: Tensors | None, log_densities: np.ndarray | None = None) -> None:
        """Keep a row, and first the weights that it scores and the log-densities: it is there only if they are."""
        append_history(self.folder.child(CURVE), self.unsaved)
        self.unsaved.clear()
        if weights is not None:
            self.keep(row["step"], weights)
        if log_densities is not None:
            buffer = io.BytesIO()
            np.save(buffer, log_densities, allow_pickle=False)
            content = buffer.getvalue()
            self.folder.child(LOG_DENSITIES).write(f"{row['step']:08d}.npy", content + _trailer(content))
        append_history(self.folder, [row])

    def log_metrics(self, metrics: Mapping[str, Any]) -> None:
        """Log a step's metrics, which the next row keeps."""
        self.unsaved.append(dict(metrics))

    def curve(self) -> list[dict[str, Any]]:
        """The metrics along the training, by step."""
        return read_history(self.folder.child(CURVE))

    def log_densities(self, step: int) -> Float[np.ndarray, "sets points"]:
        """The validation points' log-densities behind a step's score, in nats.

        Raises:
            CheckpointError: If they are not there whole.
        """
        folder, name = self.folder.child(LOG_DENSITIES), f"{step:08d}.npy"
        try:
            content = io.BytesIO(folder.read(name) or b"")
            array = np.asarray(np.load(content, allow_pickle=False))
            read, noted = content.getvalue()[: content.tell()], content.read()
            if noted not in (b"", _trailer(read)):  # before 0.3 there was none
                raise ValueError("its SHA-256 is another")
            return array
        except CheckpointError:
            raise
        except Exception as error:  # NumPy's reader raises errors of many types
            raise CheckpointError(
                "damaged file",
                folder.child(name).uri,
                str(error),
                "a search's; remove its folder, and it is done again",
            ) from error

    def keep(self, step: int, weights: Tensors) -> None:
        """Keep weights to go on from."""
        save_checkpoint(self.folder, step, weights, {}, self.kept)

    def weights(self, until: int) -> Tensors | None:
        """The newest whole checkpoint of at most this step; None if there is none, and it is trained anew."""
        for name in reversed(checkpoint_names(self.folder)):
            if checkpoint_step(name) <= until:
                try:
                    with local_copy(self.folder.child(name)) as path:
                        return read_checkpoint(path)[1]
                except CheckpointError as error:
                    logger.warning(f"{error}; training that part again")
        return None


def open_segment(
    results: Storage, job: Mapping[str, Any], origin: Mapping[str, Any] | None, kept: int = 2
) -> TrainingSegment:
    """The segment of this job from this origin: the one there is, or a new one."""
    about = {"job": dict(job), "origin": origin}
    segment = TrainingSegment(results, f"candidate-{job['candidate']}-seed-{job['seed']}-{digest(about)[:12]}", kept)
    if segment.folder.read_json(run_layout.SEGMENT) is None:
        segment.folder.write_json(run_layout.SEGMENT, about)
    return segment


def open_results(run: Storage, inputs: Any) -> tuple[Storage, int]:
    """The search's results store and how many rows it holds; results of other inputs are removed."""
    results, identity = run.child(run_layout.TUNE, run_layout.RESULTS), digest(inputs)
    noted = results.read_json(ABOUT)  # before 0.3 the digest alone, which a flipped bit made that of other inputs
    if noted not in (identity, {"inputs": identity}):
        results.remove()
        results.write_json(ABOUT, {"inputs": identity})
    return results, known_results(results)


def known_results(results: Storage) -> int:
    """How many rows a results store holds."""
    return sum(name.endswith(".jsonl") for segment in segments(results) for name in segment.folder.names())


def segments(results: Storage) -> list[TrainingSegment]:
    """All segments, by name."""
    return [TrainingSegment(results, name) for name in results.names() if name.startswith("candidate-")]


def lineage(segment: TrainingSegment) -> list[dict[str, Any]]:
    """The settings a segment's weights were really trained with: from which step on, and which, oldest first."""
    about = segment.about
    origin = about["origin"]
    settings = {key: value for key, value in about["job"].items() if key not in ("candidate", "seed")}
    if origin is None:
        return [{"step": 0, "candidate": about["job"]["candidate"], "settings": settings}]
    here = {"step": origin["step"], "candidate": about["job"]["candidate"], "settings": settings}
    earlier = lineage(TrainingSegment(segment.results, origin["stretch"]))
    return [*(part for part in earlier if part["step"] < origin["step"]), here]


def _trailer(content: bytes) -> bytes:
    """What follows an array in its file, and NumPy does not read: an odd number of bytes, so that it is no part of one."""
    return hashlib.sha256(content).hexdigest().encode() + b"\n"
