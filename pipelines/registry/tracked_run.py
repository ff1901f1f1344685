"""What a registry's pages say of a run beside its numbers: what made it, the runs inside it and its pictures."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class RunSource:
    """What has made a run: a command that makes it again, and the commit of the code, `-dirty` if that was changed."""

    command: str
    commit: str


@dataclass(frozen=True)
class ChildRun:
    """A finished run inside another, with all that is said of it; its name is its own among the other's."""

    name: str
    tags: Mapping[str, str]
    parameters: Mapping[str, Any]
    rows: Sequence[Mapping[str, Any]]  # metrics by name, each row of a `step` and at its `time_ms`
    started_ms: int
    ended_ms: int
    status: str = "FINISHED"  # or FAILED


@dataclass(frozen=True)
class SamplePicture:
    """A PNG of samples at a training's step, and when it was drawn (milliseconds since 1970)."""

    step: int
    time_ms: int
    png: bytes = field(repr=False)
