"""SIGKILL and SIGTERM to a training's processes, again and again at random steps: it ends with the undisturbed bits."""

import contextlib
import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gan_core.checkpoint import checkpoint_step, tensors_digest
from gan_core.datasets import DataSettings, load
from pipelines import config
from pipelines.storage import Storage, checkpoint_names
from pipelines.storage.metric_log import read_history
from tests.faults.scorecard.parts import Measures, Part, Row, at_most, of_all
from tests.faults.scorecard.processes import outliving, titles, watched
from tests.pipelines.conftest import SMALL, Answer, gan, kill_group, start_gan, trained_alone

HANG_SECONDS, ON_THEIR_WAY_SECONDS = 600.0, 1.0
VICTIMS = {"worker": "ray::RayTrainWorker", "controller": "ray::TrainController", "raylet": "raylet", "driver": ""}
MOST_AGAIN = {"worker": 0, "controller": 0, "raylet": 0, "driver": 1}  # commands
TRIES = 4  # of the same command
STRETCH = 400  # steps of a training for each disturbance: it comes in the first half, and there is a next step before the next
SIGTERMS_EACH = 5  # of a training
STEPS = STRETCH * SIGTERMS_EACH


@dataclass
class Place:
    """A folder for runs, their configuration, and what an undisturbed one gives."""

    folder: Path
    yaml: Path
    seed: int
    weights: str = ""
    whole: dict[str, Any] = field(default_factory=dict)  # records of an undisturbed `gan run`
    ends: dict[str, float] = field(default_factory=dict)  # seconds until its first result, and until each record

    def run(self, name: str) -> Storage:
        """A run's folder."""
        return Storage.at(self.folder / "storage" / "runs" / name)

    def command(self, words: Sequence[object]) -> list[object]:
        """With a storage of its own, as JSON."""
        return [*words, "--storage", self.folder / "storage", "--json"]


def _train(place: Place, name: str) -> list[object]:
    settings = {"algorithm.steps": STEPS, "train.report_every": 5, "train.checkpoint_every": 25, "seed": 5}
    pairs = [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
    return place.command(["train", place.yaml, *pairs, "--name", name])


@contextlib.contextmanager
def trained(folder: Path, seed: int) -> Iterator[Place]:
    """The weights of the training, by gan_core alone."""
    place = Place(folder, folder / "small.yaml", seed)
    place.yaml.write_text(SMALL)
    settings = config.load(place.yaml, [f"algorithm.steps={STEPS}", "seed=5"])
    tensors = trained_alone(config.resolve(settings, "it").training(), load(DataSettings("digits")), STEPS).tensors()
    place.weights = tensors_digest(tensors["generator"], tensors["discriminator"])
    yield place


def _step(run: Storage) -> int:
    """The last step that the run's history has."""
    names = [name for name in run.child("history").names() if name.endswith(".jsonl")]
    return int(names[-1].removesuffix(".jsonl").split("-")[1]) if names else 0


def wait(
    happened: Callable[[], Any], process: "subprocess.Popen[str] | None" = None, seconds: float = HANG_SECONDS
) -> bool:
    """Whether something happened before the process ended, or it was too late."""
    end = time.monotonic() + seconds
    while not happened():
        if (process is not None and process.poll() is not None) or time.monotonic() > end:
            return bool(happened())
        time.sleep(0.02)
    return True


def end(process: "subprocess.Popen[str]") -> tuple[Answer | None, float]:
    """How a command ends, and in how many seconds; None if it does not."""
    since = time.monotonic()
    try:
        out, err = process.communicate(timeout=HANG_SECONDS)
    except subprocess.TimeoutExpired:
        kill_group(process)
        return None, time.monotonic() - since
    return Answer(process.returncode, out, err), time.monotonic() - since


def command_again(place: Place, words: list[object]) -> tuple[Answer | None, int]:
    """The same command until it ends well, and how often it was given; None if it hangs."""
    for tries in range(1, TRIES + 1):
        try:
            answer = gan(*words, cwd=place.folder, timeout=HANG_SECONDS)
        except subprocess.TimeoutExpired:
            return None, tries
        if answer.code == 0:
            break
    return answer, tries


def _training_faults(place: Place, run: Storage, answer: Answer | None) -> list[str]:
    if answer is None:
        return ["it hangs"]
    if answer.code:
        return [f"exit {answer.code}: {(answer.err.strip().splitlines() or [''])[-1][:200]}"]
    faults = [] if answer.json["weights_sha256"] == place.weights else ["other weights"]
    steps = [row["step"] for row in read_history(run.child("history"))]
    return faults + ([] if steps == list(range(5, STEPS + 1, 5)) else ["a history of other steps"])


def _strike(process: "subprocess.Popen[str]", victim: str, at: int, run: Storage, drawn: random.Random) -> int | None:
    """SIGKILL to the victim once the history has come to a step; None if there was none to kill.

    Returns the step to which the history comes without it: reports on their way arrive a moment later.
    """

    def there() -> list[int]:
        return [pid for pid, title in titles(process.pid).items() if title.startswith(VICTIMS[victim])]

    wait(lambda: _step(run) >= at and there(), process)
    pids = there()
    if process.poll() is not None or not pids:
        return None
    if victim == "driver":
        kill_group(process)
        return _step(run)
    try:
        os.kill(drawn.choice(pids), signal.SIGKILL)
    except ProcessLookupError:  # it has ended meanwhile
        return None
    time.sleep(ON_THEIR_WAY_SECONDS)
    return _step(run)


def kill_training(place: Place, number: int) -> Measures:
    """SIGKILL to a rank, the controller and the driver of a training, in any order, and to the raylet, each at a random step."""
    drawn, name = random.Random(f"{place.seed} {number}"), f"kill-{number}"
    # The raylet last: ranks do many more steps before they end without it, and who is to be killed next would be gone.
    victims = [*drawn.sample(["worker", "controller", "driver"], 3), "raylet"]
    run, words = place.run(name), _train(place, name)
    shutil.rmtree(place.folder / "storage" / "runs" / name, ignore_errors=True)
    lingering, measured, faults = list[int](), dict[str, Any](), list[str]()
    process = start_gan(*words, cwd=place.folder)
    with contextlib.ExitStack() as watching:
        family = watching.enter_context(watched(process.pid))
        for turn, victim in enumerate(victims):
            at = STRETCH * turn + drawn.randrange(STRETCH // 2)
            reached, since = _strike(process, victim, at, run, drawn), time.monotonic() - ON_THEIR_WAY_SECONDS
            measured[f"{victim}_again"] = int(victim == "driver")
            if victim == "driver":
                lingering += outliving(family)
                reached, since = None if reached is None else _step(run), time.monotonic()  # ranks went on for a moment
                process = start_gan(*words, cwd=place.folder)
                family = watching.enter_context(watched(process.pid))
            if reached is None:
                faults.append(f"no {victim} to kill at step {at}, a fault of the scorecard")
            elif victim != "raylet" and wait(lambda reached=reached: _step(run) > reached, process):
                measured[f"{victim}_to_next"] = round(time.monotonic() - since, 2)
            if process.poll():  # it has died of that
                measured[f"{victim}_again"] += 1
                process = start_gan(*words, cwd=place.folder)
                family = watching.enter_context(watched(process.pid))
        answer, _ = end(process)
    lingering += outliving(family)
    if answer is not None and answer.code:
        answer, tries = command_again(place, words)
        measured["raylet_again"] += tries
    faults += _training_faults(place, run, answer)
    faults += [f"{len(lingering)} processes outlive it"] if lingering else []
    shutil.rmtree(place.folder / "storage" / "runs" / name, ignore_errors=True)
    return {
        "fault": f"killed: {', '.join(victims)}: {'; '.join(faults)}" if faults else "",
        "equal": not unequal(faults), "hung": "it hangs" in faults, "leaked": len(lingering), **measured,
    }  # fmt: skip


def unequal(faults: Sequence[str]) -> bool:
    return any("outlive" not in fault for fault in faults)


def terminate_training(place: Place, number: int) -> Measures:
    """SIGTERM to the driver of a training again and again, each at a random step: 143, in time, and no step lost."""
    drawn, name = random.Random(f"{place.seed} term {number}"), f"term-{number}"
    run, words = place.run(name), _train(place, name)
    shutil.rmtree(place.folder / "storage" / "runs" / name, ignore_errors=True)
    faults, seconds, lost, leaked = list[str](), list[float](), 0, 0
    for turn in range(SIGTERMS_EACH):
        at = STRETCH * turn + drawn.randrange(STRETCH // 2)
        process = start_gan(*words, cwd=place.folder)
        with watched(process.pid) as family:
            wait(lambda at=at, process=process: _step(run) >= at and titles(process.pid), process)
            process.send_signal(signal.SIGTERM)
            answer, took = end(process)
        lingering = outliving(family)
        saved = [checkpoint_step(found) for found in checkpoint_names(run.child("checkpoints"))]
        lost, leaked = lost + max(0, _step(run) - max(saved, default=0)), leaked + len(lingering)
        seconds.append(round(took, 2))
        faults += ["it hangs"] if answer is None else [f"exit {answer.code} at {at}"] if answer.code != 143 else []
        faults += [f"{len(lingering)} processes outlive it"] if lingering else []
    faults += [f"{lost} steps lost"] if lost else []
    faults += _training_faults(place, run, command_again(place, words)[0])
    shutil.rmtree(place.folder / "storage" / "runs" / name, ignore_errors=True)
    return {
        "fault": "; ".join(faults), "equal": not unequal(faults), "hung": "it hangs" in faults, "leaked": leaked,
        "to_exit": max(seconds), "lost": lost,
    }  # fmt: skip


def _kill_rows(measures: Sequence[Measures]) -> list[Row]:
    kills = len(VICTIMS) * len(measures)
    equal = len(VICTIMS) * sum(one["equal"] for one in measures)
    return [
        Row(f"bit-equal after SIGKILL of a rank, the controller, the raylet, the driver, in each of {len(measures)} trainings", "all", f"{equal} of {kills}", equal == kills),
        at_most(measures, "worker_to_next", "SIGKILL of a rank to the next step of the same command", 20),
        at_most(measures, "controller_to_next", "SIGKILL of the controller to the next step of the same command", 20),
        at_most(measures, "driver_to_next", "SIGKILL of the driver, the same command, to the next step", 40),
        *(_again_row(measures, victim, most) for victim, most in MOST_AGAIN.items()),
        *left_rows(measures, "SIGKILL in a training"),
    ]  # fmt: skip


def _again_row(measures: Sequence[Measures], victim: str, most: int) -> Row:
    given = [one[key] for one in measures if (key := f"{victim}_again") in one]
    seen = f"{max(given)} at most; {sum(given)} in {len(given)} trials" if given else "none tried"
    figure = f"SIGKILL of the {victim}: how often the command is given again"
    return Row(figure, f"<= {most}" if most else "0", seen, bool(given) and max(given) <= most)


def left_rows(measures: Sequence[Measures], what: str) -> list[Row]:
    hung, leaked = (sum(bool(one[key]) for one in measures) for key in ("hung", "leaked"))
    return [
        Row(f"{what}: hangs", "0", f"{hung} of {len(measures)}", not hung),
        Row(f"{what}: trials after which a process is left for 5 s", "0", f"{leaked} of {len(measures)}", not leaked),
    ]


def _sigterm_rows(measures: Sequence[Measures]) -> list[Row]:
    return [
        of_all(
            measures,
            f"{SIGTERMS_EACH} SIGTERM in a training: 143, no step lost, nothing left, bit-equal afterwards",
            "all",
        ),
        at_most(measures, "to_exit", "SIGTERM to exit", 10),
        at_most(measures, "lost", "steps lost per SIGTERM", 0, ""),
        *left_rows(measures, "SIGTERM in a training"),
    ]


TRAINING = Part("kill", 25, trained, kill_training, _kill_rows)
SIGTERMS = Part("term", 2, trained, terminate_training, _sigterm_rows)
