"""One move of a champion, as it is kept in a tag, and the champions that can be gone back to."""

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

MoveBy = Literal["gate", "force", "rollback", "outside"]


@dataclass(frozen=True)
class Move:
    """Where the champion alias went, when, from where and why."""

    number: int
    when: str  # UTC, ISO 8601
    former: int | None
    version: int | None  # None: the alias was taken away
    by: MoveBy
    reason: str

    def to_json(self) -> dict[str, Any]:
        """The contract of `gan models history --json`, and of the tag."""
        return {
            {"former": "from", "version": "to"}.get(key, key): value for key, value in dataclasses.asdict(self).items()
        }

    @classmethod
    def parse(cls, text: str) -> "Move":
        """The move in a tag's text; any of `checkpoint.MALFORMED` is raised if it is none."""
        move = json.loads(text)
        return cls(move["number"], move["when"], move["from"], move["to"], move["by"], move["reason"])


def former_champions(moves: Sequence[Move]) -> list[int]:
    """The champions there are to go back to, the last one last: a rollback takes one off."""
    stack: list[int] = []
    for move in moves:
        if move.by == "rollback":
            while stack and stack[-1] != move.version:
                stack.pop()
        if move.version is not None and stack[-1:] != [move.version]:
            stack.append(move.version)
    return stack
