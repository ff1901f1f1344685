"""The champion's history: moves kept, rolled back, repaired after a death at any point, one at a time from any number of processes."""

import concurrent.futures
import json
import os
import signal
import time

import pytest

from gan_core.errors import RegistryError
from pipelines.registry import CHAMPION, Registry
from pipelines.registry.champion_history import MOVE_TAG, PENDING_TAG, ChampionHistory
from pipelines.registry.lease import PREFIX, Lease
from pipelines.registry.promotion_gate import Verdict
from pipelines.registry.retention import archive, delete, prune, to_prune
from tests.pipelines import contenders
from tests.pipelines.in_memory_registry import InMemoryRegistry, in_memory

NAME = "gan-moves"
YES, NO = Verdict(True, "better, in a test"), Verdict(False, "not better, in a test")


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.slow)])
def uri(request):
    """An MLflow database, in a file and in PostgreSQL."""
    return request.getfixturevalue("registry_uri" if request.param == "sqlite" else "postgresql_uri")


@pytest.fixture(params=["mlflow", "memory"])
def registry(request, tmp_path):
    """MLflow in a file, and a registry in memory."""
    if request.param == "mlflow":
        yield Registry(request.getfixturevalue("registry_uri"))
    else:
        with in_memory(str(tmp_path)) as uri:
            yield Registry(uri)


def with_versions(registry, count, name=NAME):
    """A model with versions whose content nothing here looks at."""
    registry.backend.create_model(name)
    for number in range(1, count + 1):
        registry.backend.create_version(name, "file:///nowhere", {"number": str(number)})
    return registry.versions(name)[::-1]


def take_champion_away(registry):
    """By other means than ours, which never do it."""
    if isinstance(registry.backend, InMemoryRegistry):
        del registry.backend.aliases[NAME][CHAMPION]
    else:
        registry.backend.client.delete_registered_model_alias(NAME, CHAMPION)


def champion(registry, name=NAME):
    return registry.aliases(name).get(CHAMPION)


def tags(registry, prefix, name=NAME):
    return [tag for tag in registry.registered(name).tags if tag.startswith(prefix)]


def tracked_runs(registry, name):
    """The runs in MLflow's experiment of this name, by what they are copies of; not what is in the trash."""
    client = registry.backend.client
    experiment = client.get_experiment_by_name(name).experiment_id
    return [run.data.tags["gan.run"] for run in client.search_runs([experiment])]


def lines(registry, name=NAME):
    return [(m.number, m.former, m.version, m.by, m.reason) for m in ChampionHistory(registry, name).moves()]


# History and rollback


def test_every_move_is_recorded_with_source_and_reason(registry):
    """Every move is kept with where from, by what and why; a refused one leaves no trace."""
    first, second, third = with_versions(registry, 3)
    history = ChampionHistory(registry, NAME)
    assert history.moves() == []
    assert history.promote(first, lambda champion: YES if champion is None else NO) == YES
    assert history.promote(second, lambda champion: NO) == NO
    assert history.promote(third, lambda champion: YES if champion.version == 1 else NO) == YES
    history.force(second, "third draws no fours")
    assert lines(registry) == [
        (1, None, 1, "gate", YES.reason),
        (2, 1, 3, "gate", YES.reason),
        (3, 3, 2, "force", "third draws no fours"),
    ]
    assert champion(registry) == 2
    assert [registry.version(NAME, n).tags["gate"] for n in (1, 2, 3)] == [YES.reason, NO.reason, YES.reason]
    assert tags(registry, PREFIX) == tags(registry, PENDING_TAG) == []
    (first_tag, *_) = sorted(tags(registry, MOVE_TAG))
    move = json.loads(registry.registered(NAME).tags[first_tag])  # for those who read MLflow's page
    assert {key: move[key] for key in ("from", "to", "by", "reason")} == {
        "from": None, "to": 1, "by": "gate", "reason": YES.reason,
    }  # fmt: skip
    assert move["when"].endswith("+00:00")


def test_promoting_or_forcing_the_champion_moves_nothing(registry):
    """Promoting the champion changes nothing, and forcing it is refused."""
    (first,) = with_versions(registry, 1)
    history = ChampionHistory(registry, NAME)
    history.promote(first, lambda champion: YES)
    assert history.promote(first, lambda champion: pytest.fail("the gate was asked")) == YES
    with pytest.raises(RegistryError, match="champion already"):
        history.force(first, "again")
    assert len(history.moves()) == 1


def test_rollback_undoes_moves_in_turn_then_refuses(registry):
    """Rollback undoes moves one after the other, and then refuses."""
    versions = with_versions(registry, 4)
    history = ChampionHistory(registry, NAME)
    with pytest.raises(RegistryError, match=rf"nothing to roll back to \({NAME}\): no champion yet"):
        history.rollback()
    for version in versions[:3]:
        history.force(version, "a test")
    assert [history.rollback().version, champion(registry)] == [2, 2]
    assert [history.rollback().version, champion(registry)] == [1, 1]
    with pytest.raises(RegistryError, match=r"nothing to roll back to.*1 was the first champion"):
        history.rollback()
    history.force(versions[3], "a test")  # what was undone is not come back to
    assert [history.rollback().version, champion(registry)] == [1, 1]
    assert [move.by for move in history.moves()] == ["force"] * 3 + ["rollback"] * 2 + ["force", "rollback"]
    assert history.moves()[3].reason == "back to version 2 from version 3"


@pytest.mark.parametrize("gone", [archive, delete])
def test_rollback_to_a_removed_version_is_refused(registry, gone):
    """A rollback to a version that was archived or deleted is refused and moves nothing."""
    first, second = with_versions(registry, 2)
    history = ChampionHistory(registry, NAME)
    history.force(first, "a test")
    history.force(second, "a test")
    gone(registry, first)
    with pytest.raises(RegistryError, match=rf"cannot roll back \({NAME}/1\): it was {gone.__name__}d"):
        history.rollback()
    assert (champion(registry), len(history.moves())) == (2, 2)
    with pytest.raises(RegistryError, match="cannot be champion"):
        history.force(first, "a test")
    with pytest.raises(RegistryError, match="cannot be champion"):
        history.promote(first, lambda champion: pytest.fail("the gate was asked"))


def test_outside_move_is_recorded_and_undoable(registry):
    """A move by other means is noticed and kept, and can be undone."""
    versions = with_versions(registry, 3)
    history = ChampionHistory(registry, NAME)
    registry.backend.set_alias(NAME, CHAMPION, 1)  # before gan kept moves
    history.force(versions[1], "a test")
    registry.backend.set_alias(NAME, CHAMPION, 3)
    assert history.rollback().version == 2
    take_champion_away(registry)
    assert history.rollback().version == 2
    assert [(m.former, m.version, m.by) for m in history.moves()] == [
        (None, 1, "outside"), (1, 2, "force"), (2, 3, "outside"), (3, 2, "rollback"), (2, None, "outside"),
        (None, 2, "rollback"),
    ]  # fmt: skip
    assert history.rollback().version == 1


def test_reason_of_any_length_fits_in_a_tag(registry):
    """A reason of any length fits in a tag of every database."""
    (first,) = with_versions(registry, 1)
    ChampionHistory(registry, NAME).force(first, "±" * 9000)
    (tag,) = tags(registry, MOVE_TAG)
    assert 1000 < len(registry.registered(NAME).tags[tag]) < 5000  # what PostgreSQL's column holds


def test_damaged_history_is_an_error_in_one_line(registry):
    """A history that someone spoilt is an error in one line."""
    with_versions(registry, 1)
    registry.backend.set_tag(NAME, f"{MOVE_TAG}00000001", "[]")
    with pytest.raises(RegistryError, match=rf"unreadable history \({NAME}\)"):
        ChampionHistory(registry, NAME).moves()


# Deaths: the same promotion again ends as if nothing had happened (F11)


class Death(BaseException):
    """The end of a process: nothing catches it."""


def die():
    raise Death


def test_promotion_killed_at_any_write_is_completed(registry):
    """A promotion that died before any of its writes is finished or done again by the next process."""
    survivor, died = registry, 0
    term = 1 if isinstance(registry.backend, InMemoryRegistry) else 12  # what a write takes decides
    for writes in range(1, 100):
        name = f"{NAME}-{writes}"
        first, second = with_versions(survivor, 2, name)
        ChampionHistory(survivor, name).force(first, "a test")
        mortal = Registry(registry.uri)
        mortal.backend = contenders.Mortal(mortal.backend, writes, die)
        try:
            ChampionHistory(mortal, name).promote(second, lambda champion: YES)
        except Death:
            died += 1
        else:
            break
    assert died == 8  # the gate's tag, two for a ticket, announced, moved, kept, no longer announced, ticket given back

    def again(writes):
        name = f"{NAME}-{writes}"
        second = survivor.version(name, 2)
        return ChampionHistory(survivor, name, term=term).promote(second, lambda champion: YES)

    with concurrent.futures.ThreadPoolExecutor(died) as pool:  # each waits until the dead one counts as dead
        assert list(pool.map(again, range(1, died + 1))) == [YES] * died
    for writes in range(1, died + 1):
        name = f"{NAME}-{writes}"
        assert champion(survivor, name) == 2
        assert lines(survivor, name) == [(1, None, 1, "force", "a test"), (2, 1, 2, "gate", YES.reason)]
        assert tags(survivor, PENDING_TAG, name) == []


def test_kill_between_move_and_entry_is_repaired(registry_uri):
    """A process killed between the move and its entry leaves the entry to the next, which writes it."""
    registry = Registry(registry_uri)
    with_versions(registry, 2)
    assert contenders.alone(contenders.die_after, registry_uri, NAME, 2, 6) == -signal.SIGKILL
    assert champion(registry) == 2
    assert lines(registry) == []  # the alias has moved, and nothing says why
    ChampionHistory(registry, NAME, term=4).repair()
    assert lines(registry) == [(1, None, 2, "gate", "better, in a test")]
    assert tags(registry, PREFIX) == tags(registry, PENDING_TAG) == []


# The lease


@pytest.mark.parametrize(("processes", "rounds"), [(2, 10), (8, 3)])
def test_lease_admits_one_process_at_a_time(uri, processes, rounds):
    """Processes that hold the lease one at a time lose no count."""
    registry, name = Registry(uri, create=True), f"gan-lease-{processes}"
    registry.backend.create_model(name)
    contenders.together(contenders.count, [(uri, name, rounds)] * processes)
    assert registry.registered(name).tags == {contenders.COUNTER: str(processes * rounds)}


def test_dead_holder_is_waited_for_one_term(registry):
    """A dead holder is waited for as long as its term and no longer, and must not go on after that."""
    with_versions(registry, 1)
    dead = Lease(registry.backend, NAME, term=2)
    waiting = dead.held()
    waiting.__enter__()  # and never given back
    started = time.monotonic()
    with Lease(registry.backend, NAME, term=2).held() as mine:
        waited = time.monotonic() - started
        assert tags(registry, PREFIX) == [mine.tag]
        with pytest.raises(RegistryError, match="lease was lost"):
            dead.check()  # what was counted as dead must not go on
    assert waited > 2  # whoever waits for ten terms is refused
    assert tags(registry, PREFIX) == []


def test_holder_silent_for_half_a_term_stops(registry):
    """A holder that was silent for half its term does not go on."""
    with_versions(registry, 1)
    with Lease(registry.backend, NAME, term=1).held() as lease:
        time.sleep(0.6)
        with pytest.raises(RegistryError, match=rf"lease was lost \({NAME}\)"):
            lease.check()


class LivesOn:
    """A registry of which every look at a model comes just after its lease's holder has shown that it is alive."""

    def __init__(self, store, holder):
        self.store, self.holder = store, holder

    def __getattr__(self, name):
        return getattr(self.store, name)

    def model(self, name):
        self.holder.renew()
        return self.store.model(name)


def test_waiting_for_a_live_holder_ends_after_ten_terms(registry):
    """Whoever waits for a living holder gives up after ten terms and says who it is, however slow the machine is."""
    with_versions(registry, 1)
    living = Lease(registry.backend, NAME, term=60)
    busy = pytest.raises(RegistryError, match=rf"registry is busy.*:{os.getpid()}")
    with living.held(), busy, Lease(LivesOn(registry.backend, living), NAME, term=0.5).held():
        pass
    assert tags(registry, PREFIX) == []


# Many at once (F12)


@pytest.mark.parametrize("processes", [3, pytest.param(8, marks=pytest.mark.slow)])
def test_parallel_registrations_keep_all_and_the_best(uri, tmp_path, processes):
    """Processes that register at once leave all versions, with the best as champion and one history."""
    name = f"gan-at-once-{processes}"
    # Each better than the one before, and no more components than the gate's 300 samples can tell apart.
    components = {3: [2, 6], 8: [0, 0, 1, 2, 3, 4, 6]}[processes]
    arguments = [(uri, str(tmp_path), name, f"run-{order}", count) for order, count in enumerate(components)]
    found = contenders.together(contenders.night, [*arguments, arguments[-1]])  # and the last one twice
    registry = Registry(uri)
    once = sorted(run for *_, run, _ in arguments)
    assert (
        sorted(version.tags["run"] for version in registry.versions(name)) == once
    )  # not even one marked as duplicate
    assert sorted(tracked_runs(registry, name)) == once
    best = registry.resolve(f"{name}@champion")
    assert best.tags["run"] == arguments[-1][3]
    assert found[-1] == found[-2] == (best.version, True)
    assert registry.aliases(name)["challenger"] >= max(version for version, _ in found)
    moves = ChampionHistory(registry, name).moves()
    assert [move.number for move in moves] == list(range(1, len(moves) + 1))
    assert [move.former for move in moves] == [None, *(move.version for move in moves[:-1])]
    assert moves[-1].version == best.version
    assert tags(registry, "gan.", name) == tags(registry, MOVE_TAG, name)  # no lease, and nothing announced


@pytest.mark.slow
def test_six_registrations_of_one_run_leave_one_version(mlflow_server, tmp_path):
    """Six processes that register one run leave one version, not one marked as a duplicate, and one MLflow run."""
    name = "gan-six"
    found = contenders.together(contenders.night, [(mlflow_server.uri, str(tmp_path), name, "run", 4)] * 6)
    registry = Registry(mlflow_server.uri)
    assert [version for version, _ in found] == [1] * 6
    assert (len(registry.versions(name)), tracked_runs(registry, name)) == (1, ["run"])


# Retention


def test_aliased_version_is_neither_archived_nor_deleted(registry):
    """What an alias is on is neither archived nor deleted."""
    first, second = with_versions(registry, 2)
    history = ChampionHistory(registry, NAME)
    history.force(first, "a test")
    history.challenge(second)
    for refuse in (archive, delete):
        with pytest.raises(RegistryError, match=rf"version in use \({NAME}/1\): it is champion"):
            refuse(registry, first)
        with pytest.raises(RegistryError, match="it is challenger"):
            refuse(registry, second)
    assert len(registry.versions(NAME)) == 2
    assert not any(version.archived for version in registry.versions(NAME))


def test_an_older_version_does_not_become_challenger(registry):
    first, second = with_versions(registry, 2)
    history = ChampionHistory(registry, NAME)
    history.challenge(second)
    history.challenge(first)
    assert registry.aliases(NAME) == {"challenger": 2}


def test_pruning_keeps_newest_aliases_and_five_moves(registry):
    """Pruning keeps the newest, every alias and the versions of the last five moves, so rollback still works."""
    versions = with_versions(registry, 14)
    history = ChampionHistory(registry, NAME)
    for number in (1, 2, 3, 4, 5, 6, 7):
        history.force(versions[number - 1], "a test")
    history.challenge(versions[13])
    registry.backend.set_alias(NAME, "tried", 9)
    # Newest 3: 12 to 14; aliases 7, 9, 14; the last five moves: 2 to 3, ..., 6 to 7.
    expected = [11, 10, 8, 1]
    assert [version.version for version in to_prune(registry, NAME, 3)] == expected
    assert len(registry.versions(NAME)) == 14
    assert [version.version for version in prune(registry, NAME, 3)] == expected
    assert [v.version for v in registry.versions(NAME)] == [14, 13, 12, 9, 7, 6, 5, 4, 3, 2]
    assert prune(registry, NAME, 3) == []
    assert [history.rollback().version for _ in range(5)] == [6, 5, 4, 3, 2]
    with pytest.raises(RegistryError, match=rf"cannot roll back \({NAME}/1\): it was deleted"):
        history.rollback()
