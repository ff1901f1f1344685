"""What a search has found out so far: every score and the weights behind it, in the run's storage as they arrive.

A stretch is a training under one set of settings: from the beginning or, where population based
training has moved weights and changed settings, from a step of another stretch. Its name is its
content, so a search that is started again, or with more candidates, finds what it has already done,
and nothing else. This is the truth about a search; Ray Tune's own folder is only its working memory.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gan_core.checkpoint import checkpoint_step, read_checkpoint
from gan_core.errors import CheckpointError
from pipelines.config import digest
from pipelines.storage import Storage, Tensors, checkpoint_names, local_copy, save_checkpoint
from pipelines.storage.metric_log import append_history, read_history

logger = logging.getLogger(__name__)
ABOUT, STRETCH = "about.json", "stretch.json"


@dataclass(frozen=True)
class Stretch:
    """A candidate's training under one set of settings: its rows, and the checkpoints at its rungs."""

    findings: Storage
    name: str
    kept: int = 2  # checkpoints: the newest, and what remains if it is damaged

    @property
    def folder(self) -> Storage:
        """Where it is kept."""
        return self.findings.within(self.name)

    @property
    def about(self) -> dict[str, Any]:
        """Its job (candidate, seed and settings) and its origin: another stretch's name and step, or None."""
        return dict(self.folder.read_json(STRETCH))

    def rows(self) -> list[dict[str, Any]]:
        """The scores so far, by step."""
        return read_history(self.folder)

    def commit(self, row: Mapping[str, Any], weights: Tensors | None) -> None:
        """Keep a row, and first the weights that it scores: a row is there only if its weights are."""
        if weights is not None:
            self.keep(row["step"], weights)
        append_history(self.folder, [row])

    def keep(self, step: int, weights: Tensors) -> None:
        """Keep weights to go on from."""
        save_checkpoint(self.folder, step, weights, {}, self.kept)

    def weights(self, until: int) -> Tensors | None:
        """The newest whole checkpoint of at most this step; None if there is none, and it is trained anew."""
        for name in reversed(checkpoint_names(self.folder)):
            if checkpoint_step(name) <= until:
                try:
                    with local_copy(self.folder.within(name)) as path:
                        return read_checkpoint(path)[1]
                except CheckpointError as error:
                    logger.warning(f"{error}; training that part again")
        return None


def open_stretch(findings: Storage, job: Mapping[str, Any], origin: Mapping[str, Any] | None, kept: int = 2) -> Stretch:
    """The stretch of this job from this origin: the one there is, or a new one."""
    about = {"job": dict(job), "origin": origin}
    stretch = Stretch(findings, f"candidate-{job['candidate']}-seed-{job['seed']}-{digest(about)[:12]}", kept)
    if stretch.folder.read_json(STRETCH) is None:
        stretch.folder.write_json(STRETCH, about)
    return stretch


def open_findings(run: Storage, inputs: Any) -> tuple[Storage, int]:
    """The search's findings and how many rows they hold; those of other inputs are removed."""
    findings, identity = run.within("tune", "findings"), digest(inputs)
    if findings.read_json(ABOUT) != identity:
        findings.remove()
        findings.write_json(ABOUT, identity)
    rows = sum(name.endswith(".jsonl") for stretch in stretches(findings) for name in stretch.folder.names())
    return findings, rows


def stretches(findings: Storage) -> list[Stretch]:
    """All stretches, by name."""
    return [Stretch(findings, name) for name in findings.names() if name.startswith("candidate-")]


def lineage(stretch: Stretch) -> list[dict[str, Any]]:
    """The settings a stretch's weights were really trained with: from which step on, and which, oldest first."""
    about = stretch.about
    origin = about["origin"]
    settings = {key: value for key, value in about["job"].items() if key not in ("candidate", "seed")}
    if origin is None:
        return [{"step": 0, "candidate": about["job"]["candidate"], "settings": settings}]
    here = {"step": origin["step"], "candidate": about["job"]["candidate"], "settings": settings}
    before = [part for part in lineage(Stretch(stretch.findings, origin["stretch"])) if part["step"] < origin["step"]]
    return [*before, here]
