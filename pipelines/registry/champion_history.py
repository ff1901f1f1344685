"""The champion's history: moves of its alias, one at a time, each kept in the registry with its reason, each undone by a rollback."""

import datetime
import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from gan_core.errors import RegistryError
from gan_core.manifest import MALFORMED
from pipelines.registry.lease import TERM, Lease, LeaseLost
from pipelines.registry.lookup import Lookup
from pipelines.registry.move import Move, MoveBy, former_champions
from pipelines.registry.registry import CHALLENGER, CHAMPION, ModelVersion, Registry

if TYPE_CHECKING:
    from pipelines.registry.promotion_gate import Verdict

# Tags of the registered model. A move is announced, made, and then kept: whoever holds the lease next
# finds one that was cut short, and finishes it or, if the alias had not moved, takes it back.
MOVE_TAG, PENDING_TAG = "gan.move.", "gan.pending_move"
MAX_REASON = 1000  # characters; PostgreSQL keeps 5,000 of a tag
MAX_LEASES_LOST = 3  # by a registry that answers slowly, before a move is given up
MAX_JUDGEMENTS = 20  # of one challenger while the champion keeps changing

Result = TypeVar("Result")


class ChampionHistory:
    """The moves of one model's champion. `term` is the lease's: how long a silent process holds up others."""

    def __init__(self, registry: Registry, name: str, term: float = TERM) -> None:
        self.registry, self.name, self.term = registry, name, term

    def lease(self) -> Lease:
        """A lease on this model's aliases, not yet held.

        Raises:
            RegistryError: If there is no such model; the nearest names are listed.
        """
        self.registry.registered(self.name)
        return Lease(self.registry.backend, self.name, self.term)

    def moves(self) -> list[Move]:
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

    def challenge(self, version: ModelVersion) -> None:
        """Make the version challenger, unless a newer one is."""
        with self.lease().held():
            if self.registry.aliases(self.name).get(CHALLENGER, 0) < version.version:
                self._set_alias(CHALLENGER, version.version)

    def promote(self, version: ModelVersion, judge: "Callable[[ModelVersion | None], Verdict]") -> "Verdict":
        """Ask the gate, and make the version champion if it passes.

        The gate takes minutes, so it is asked before the lease is taken; if the champion it was
        asked about is no longer the champion then, it is asked again.

        Raises:
            RegistryError: If the version is archived or gone, or the champion never stays the same.
        """
        from pipelines.registry.promotion_gate import Verdict  # and with it SciPy

        self._check_available(version.version, "cannot be champion")
        for _ in range(MAX_JUDGEMENTS):
            self.repair()
            champion = self.registry.holder(self.name, CHAMPION)
            if champion is not None and champion.version == version.version:
                return Verdict(True, champion.tags.get("gate", "champion already"))
            verdict = judge(champion)
            self.registry.tag(version, {"gate": verdict.reason[:MAX_REASON]})
            if not verdict.promoted:
                return verdict
            judged, reason = champion.version if champion else None, verdict.reason

            def move(lease: Lease, judged: int | None = judged, reason: str = reason) -> bool:
                if self._champion() != judged:
                    return False
                self._check_available(version.version, "cannot be champion")
                self._move_champion(lease, version.version, "gate", reason)
                return True

            if self._under_lease(move):
                return verdict
        raise RegistryError(
            "champion keeps changing", self.name, f"{MAX_JUDGEMENTS} times while {version} was judged",
            "to be tried again",
        )  # fmt: skip

    def force(self, version: ModelVersion, reason: str) -> Move:
        """Make the version champion without asking the gate.

        Raises:
            RegistryError: If it is archived or gone, or champion already.
        """

        def move(lease: Lease) -> Move:
            self._check_available(version.version, "cannot be champion")
            if self._champion() == version.version:
                raise RegistryError("nothing to move", version, "champion already", "another version")
            return self._move_champion(lease, version.version, "force", reason)

        return self._under_lease(move)

    def rollback(self) -> Move:
        """Undo the champion's last move; again, the one before.

        Raises:
            RegistryError: If there is no champion before this one, or it was deleted or archived.
        """

        def move(lease: Lease) -> Move:
            current, before = self._champion(), former_champions(self.moves())
            if current is not None:
                before = before[:-1]
            if not before:
                raise RegistryError(
                    "nothing to roll back to",
                    self.name,
                    "no champion yet" if current is None else f"{current} was the first champion",
                    f"a champion with one before it: gan models history {self.name}",
                )
            self._check_available(before[-1], "cannot roll back")
            undone = "no champion" if current is None else f"version {current}"
            return self._move_champion(lease, before[-1], "rollback", f"back to version {before[-1]} from {undone}")

        return self._under_lease(move)

    def repair(self) -> None:
        """Finish, or take back, a move that was cut short; keep one that was made by other means."""
        if PENDING_TAG in self.registry.registered(self.name).tags or self._last_kept() != self._champion():
            with self.lease().held():
                self._repair()

    def _under_lease(self, act: Callable[[Lease], Result]) -> Result:
        """Repair, and then act, under the lease; again if it was lost before the alias moved."""
        for lost in range(1, MAX_LEASES_LOST + 1):
            with self.lease().held() as lease:
                try:
                    self._repair()
                    return act(lease)
                except LeaseLost:
                    if lost == MAX_LEASES_LOST:
                        raise
        raise AssertionError("unreachable")

    def _repair(self) -> None:
        pending = self.registry.registered(self.name).tags.get(PENDING_TAG)
        if pending is not None:
            move, moves = Move.parse(pending), self.moves()
            if self._champion() == move.version and len(moves) < move.number:
                self._keep(move)
            self.registry.backend.delete_tag(self.name, PENDING_TAG)
        kept, current = self._last_kept(), self._champion()
        if kept != current:
            self._keep(self._next_move(current, "outside", "moved by other means than gan, or before it kept moves"))

    def _move_champion(self, lease: Lease, version: int, by: MoveBy, reason: str) -> Move:
        move = self._next_move(version, by, reason)
        self._set_tag(PENDING_TAG, move)
        lease.check()
        self._set_alias(CHAMPION, version)
        self._keep(move)
        self.registry.backend.delete_tag(self.name, PENDING_TAG)
        return move

    def _next_move(self, version: int | None, by: MoveBy, reason: str) -> Move:
        moves = self.moves()
        when = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        number, former = (moves[-1].number + 1, moves[-1].version) if moves else (1, None)
        return Move(number, when, former, version, by, reason[:MAX_REASON])

    def _set_alias(self, alias: str, version: int) -> None:
        self.registry.backend.set_alias(self.name, alias, version)
        holder = self.registry.aliases(self.name).get(alias)
        if holder != version:
            raise RegistryError("alias was moved meanwhile", f"{self.name}@{alias}", str(holder), str(version))

    def _champion(self) -> int | None:
        """The champion's number, by the alias."""
        return self.registry.aliases(self.name).get(CHAMPION)

    def _last_kept(self) -> int | None:
        """The champion's number, by the last move that was kept."""
        moves = self.moves()
        return moves[-1].version if moves else None

    def _check_available(self, number: int, refusal: str) -> None:
        version = self.registry.version(self.name, number)
        if version is None or version.archived:
            state = "deleted" if version is None else "archived"
            raise RegistryError(
                refusal, f"{self.name}/{number}", f"it was {state}", f"another: gan models promote {self.name}/VERSION"
            )

    def _keep(self, move: Move) -> None:
        self._set_tag(f"{MOVE_TAG}{move.number:08d}", move)

    def _set_tag(self, tag: str, move: Move) -> None:
        self.registry.backend.set_tag(self.name, tag, json.dumps(move.to_json(), ensure_ascii=False))


def entries(lookup: Lookup, name: str) -> list[dict[str, Any]]:
    """All moves of a model's champion for people to read, oldest first; of a tag that is none, `unreadable` is its text."""
    tags, entries = lookup.registered(name).tags, []
    for tag in sorted(tag for tag in tags if tag.startswith(MOVE_TAG)):
        try:
            entries.append(Move.parse(tags[tag]).to_json())
        except MALFORMED:
            entries.append({"tag": tag, "unreadable": tags[tag]})
    return entries
