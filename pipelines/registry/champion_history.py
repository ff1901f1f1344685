"""The champion's moves: one at a time, each kept in the registry with its reason, each can be undone."""

import dataclasses
import datetime
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from gan_core.checkpoint import MALFORMED
from gan_core.errors import RegistryError
from pipelines.registry.lease import TERM, Lease, LeaseLost
from pipelines.registry.mlflow_client import registry_errors
from pipelines.registry.promotion_gate import Verdict
from pipelines.registry.registry import CHALLENGER, CHAMPION, ModelVersion, Registry

# Tags of the registered model. A move is announced, made, and then kept: whoever holds the lease next
# finds one that was cut short, and finishes it or, if the alias had not moved, takes it back.
MOVE_TAG, PENDING_TAG = "gan.move.", "gan.pending_move"
LONGEST = 1000  # characters of a reason; PostgreSQL keeps 5,000 of a tag
LOSSES = 3  # of the lease, by a registry that answers slowly, before a move is given up
ATTEMPTS = 20  # judgements of one challenger while the champion keeps changing

Result = TypeVar("Result")


@dataclass(frozen=True)
class Move:
    """Where the champion alias went, when, from where and why."""

    number: int
    when: str  # UTC, ISO 8601
    former: int | None
    version: int | None  # None: the alias was taken away
    by: Literal["gate", "force", "rollback", "outside"]
    reason: str

    def to_json(self) -> dict[str, Any]:
        """The contract of `gan models history --json`, and of the tag."""
        known = dataclasses.asdict(self)
        return {{"former": "from", "version": "to"}.get(key, key): value for key, value in known.items()}

    @classmethod
    def parse(cls, text: str) -> "Move":
        """The move in a tag's text."""
        known = json.loads(text)
        return cls(known["number"], known["when"], known["from"], known["to"], known["by"], known["reason"])


class Moves:
    """The moves of one model's champion. `term` is the lease's: how long a silent process holds up others."""

    def __init__(self, registry: Registry, name: str, term: float = TERM) -> None:
        self.registry, self.name, self.term = registry, name, term

    def lease(self) -> Lease:
        """A lease on this model's aliases, not yet held.

        Raises:
            RegistryError: If there is no such model; the nearest names are listed.
        """
        self.registry.registered(self.name)
        return Lease(self.registry.client, self.registry.uri, self.name, self.term)

    def history(self) -> list[Move]:
        """All moves, oldest first, as they are kept.

        Raises:
            RegistryError: If there is no such model, or a move cannot be read.
        """
        tags = self.registry.registered(self.name).tags
        try:
            return [Move.parse(tags[tag]) for tag in sorted(tags) if tag.startswith(MOVE_TAG)]
        except MALFORMED as error:
            raise RegistryError(
                "unreadable history", self.name, str(error), f"{MOVE_TAG}* tags as gan writes them"
            ) from error

    def entries(self) -> list[dict[str, Any]]:
        """All moves for people to read, oldest first; of a tag that is none, `unreadable` is its text."""
        tags, found = self.registry.registered(self.name).tags, []
        for tag in sorted(tag for tag in tags if tag.startswith(MOVE_TAG)):
            try:
                found.append(Move.parse(tags[tag]).to_json())
            except MALFORMED:
                found.append({"tag": tag, "unreadable": tags[tag]})
        return found

    def challenge(self, version: ModelVersion) -> None:
        """Make the version challenger, unless a newer one is."""
        with self.lease().held():
            if self.registry.aliases(self.name).get(CHALLENGER, 0) < version.version:
                self._set(CHALLENGER, version.version)

    def promote(self, version: ModelVersion, judge: Callable[[ModelVersion | None], Verdict]) -> Verdict:
        """Ask the gate, and make the version champion if it says so.

        The gate takes minutes, so it is asked before the lease is taken; if the champion it was
        asked about is no longer the champion then, it is asked again.

        Raises:
            RegistryError: If the version is archived or gone, or the champion never stays the same.
        """
        self._check_offered(version.version, "cannot be champion")
        for _ in range(ATTEMPTS):
            self.repair()
            champion = self.registry.holder(self.name, CHAMPION)
            if champion is not None and champion.version == version.version:
                return Verdict(True, champion.tags.get("gate", "champion already"))
            verdict = judge(champion)
            self.registry.tag(version, {"gate": verdict.reason[:LONGEST]})
            if not verdict.promoted:
                return verdict
            judged, reason = champion.version if champion else None, verdict.reason

            def move(lease: Lease, judged: int | None = judged, reason: str = reason) -> bool:
                if self._current() != judged:
                    return False
                self._check_offered(version.version, "cannot be champion")
                self._move(lease, version.version, "gate", reason)
                return True

            if self._alone(move):
                return verdict
        raise RegistryError(
            "champion keeps changing", self.name, f"{ATTEMPTS} times while {version} was judged", "to be tried again"
        )

    def force(self, version: ModelVersion, reason: str) -> Move:
        """Make the version champion without asking the gate.

        Raises:
            RegistryError: If it is archived or gone, or champion already.
        """

        def move(lease: Lease) -> Move:
            self._check_offered(version.version, "cannot be champion")
            if self._current() == version.version:
                raise RegistryError("nothing to move", version, "champion already", "another version")
            return self._move(lease, version.version, "force", reason)

        return self._alone(move)

    def rollback(self) -> Move:
        """Undo the champion's last move; again, the one before.

        Raises:
            RegistryError: If there is no champion before this one, or it was deleted or archived.
        """

        def move(lease: Lease) -> Move:
            current, before = self._current(), champions(self.history())
            if current is not None:
                before = before[:-1]
            if not before:
                raise RegistryError(
                    "nothing to roll back to",
                    self.name,
                    "no champion yet" if current is None else f"{current} was the first champion",
                    f"a champion with one before it: gan models history {self.name}",
                )
            self._check_offered(before[-1], "cannot roll back")
            undone = "no champion" if current is None else f"version {current}"
            return self._move(lease, before[-1], "rollback", f"back to version {before[-1]} from {undone}")

        return self._alone(move)

    def repair(self) -> None:
        """Finish, or take back, a move that was cut short; keep one that was made by other means."""
        history = self.history()
        known = history[-1].version if history else None
        if PENDING_TAG in self.registry.registered(self.name).tags or known != self._current():
            with self.lease().held():
                self._repair()

    def _alone(self, act: Callable[[Lease], Result]) -> Result:
        """Repair, and then act, under the lease; again if it was lost before the alias moved."""
        for losses in range(1, LOSSES + 1):
            with self.lease().held() as lease:
                try:
                    self._repair()
                    return act(lease)
                except LeaseLost:
                    if losses == LOSSES:
                        raise
        raise AssertionError("unreachable")

    def _repair(self) -> None:
        pending = self.registry.registered(self.name).tags.get(PENDING_TAG)
        if pending is not None:
            move, history = Move.parse(pending), self.history()
            if self._current() == move.version and len(history) < move.number:
                self._keep(move)
            self._untag(PENDING_TAG)
        history = self.history()
        known, current = (history[-1].version if history else None), self._current()
        if known != current:
            self._keep(self._next(current, "outside", "moved by other means than gan, or before it kept moves"))

    def _move(self, lease: Lease, version: int, by: Any, reason: str) -> Move:
        move = self._next(version, by, reason)
        self._tag(PENDING_TAG, move)
        lease.check()
        self._set(CHAMPION, version)
        self._keep(move)
        self._untag(PENDING_TAG)
        return move

    def _next(self, version: int | None, by: Any, reason: str) -> Move:
        history = self.history()
        when = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        number, former = (history[-1].number + 1, history[-1].version) if history else (1, None)
        return Move(number, when, former, version, by, reason[:LONGEST])

    def _set(self, alias: str, version: int) -> None:
        with registry_errors(self.registry.uri):
            self.registry.client.set_registered_model_alias(self.name, alias, str(version))
        found = self.registry.aliases(self.name).get(alias)
        if found != version:
            raise RegistryError("alias was moved meanwhile", f"{self.name}@{alias}", str(found), str(version))

    def _current(self) -> int | None:
        return self.registry.aliases(self.name).get(CHAMPION)

    def _check_offered(self, number: int, what: str) -> None:
        version = self.registry.version(self.name, number)
        if version is None or version.archived:
            state = "deleted" if version is None else "archived"
            raise RegistryError(
                what, f"{self.name}/{number}", f"it was {state}", f"another: gan models promote {self.name}/VERSION"
            )

    def _keep(self, move: Move) -> None:
        self._tag(f"{MOVE_TAG}{move.number:08d}", move)

    def _tag(self, tag: str, move: Move) -> None:
        with registry_errors(self.registry.uri):
            self.registry.client.set_registered_model_tag(
                self.name, tag, json.dumps(move.to_json(), ensure_ascii=False)
            )

    def _untag(self, tag: str) -> None:
        with registry_errors(self.registry.uri):
            self.registry.client.delete_registered_model_tag(self.name, tag)


def champions(history: Sequence[Move]) -> list[int]:
    """The champions there are to go back to, the last one last: a rollback takes one off."""
    stack: list[int] = []
    for move in history:
        if move.by == "rollback":
            while stack and stack[-1] != move.version:
                stack.pop()
        if move.version is not None and stack[-1:] != [move.version]:
            stack.append(move.version)
    return stack
