"""The transcript of cluster/README.md, run as it is written there, on smaller sizes and on ports and folders that are free."""

import json
import os
import re
import shutil
import sys
import tempfile
from pathlib import Path

import pytest

from cluster import postgresql
from tests.cluster import transcript
from tests.conftest import free_port, listening
from tests.pipelines.conftest import ANY_MODEL, environment, until

ROOT = Path(__file__).parents[2]
HEADING = "One machine, whole"
PORTS = ("5000", "5433", "6379", "8265", "10001", "52365", "52366", "52367")
# The second night is not better, as in the README; both are found by their aliases all the same.
SMALLER = (
    "tune.candidates=2", "tune.rungs=[20,40]", "tune.samples=200", "tune.confirm.best=1", "tune.min_coverage=0.0", "algorithm.steps=120",
    "train.checkpoint_every=60", "evaluate.samples=500", "registry.gate.min_margin=10000.0",
    *(f"registry.gate.{name}={json.dumps(value)}" for name, value in ANY_MODEL.items()),
)  # fmt: skip


@pytest.fixture
def shell():
    """A shell in the checkout, in whose folder all that the transcript makes lies."""
    place = Path(tempfile.mkdtemp(prefix="gan-"))  # short, for Ray's sockets
    place.chmod(0o711)  # PostgreSQL runs as another user
    (place / "ray").mkdir()
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    made = transcript.Shell(place, environment(PATH=path, PYTHONPATH=str(ROOT), RAY_TMPDIR=str(place / "ray")))
    yield made
    made.close()
    shutil.rmtree(place, ignore_errors=True)


def adapted(place, ports):
    """Gives a command free ports, this test's folder and smaller sizes."""

    def adapt(command):
        moved = re.sub(rf"\b({'|'.join(PORTS)})\b", lambda found: ports[found[1]], command).replace(
            "/srv/", f"{place}/"
        )
        return moved.replace(
            "configs/digits.yaml", " ".join(["configs/digits.yaml", *(f"--set '{one}'" for one in SMALLER)])
        )

    return adapt


def test_transcript_parser_joins_lines_and_finds_missing():
    """Continued lines are one command, and `missing` names the shown lines that an answer lacks, numbers apart."""
    text = "## A\n\n```\nnot one\n```\n\n```\n$ a \\\n    b\n1.5 x\ny\n$ c\n```\n\n## B\n\n```\n$ d\n```\n"
    assert transcript.parse(text, "A") == [transcript.Entry("a b", ("1.5 x", "y")), transcript.Entry("c", ())]
    assert transcript.missing(["1.5  x", "y"], "first\n-27 x\nz\ny\n") == []
    assert transcript.missing(["y", "1.5 x"], "2 x\ny\n") == ["1.5 x"]
    recorded = "2026-11-24 14:21:10,777\tSUCC scripts.py:1085 -- \x1b[32mRay runtime started.\x1b[39m\n"
    assert transcript.missing(["Ray runtime started."], recorded) == []


@pytest.mark.slow
@pytest.mark.skipif(not postgresql.installed(), reason="no PostgreSQL server on this machine")
def test_readme_transcript_happens_as_written(shell, monkeypatch):
    """Each command of the README's transcript succeeds, and its answer has the lines that are shown."""
    monkeypatch.chdir(ROOT)
    entries = transcript.parse((ROOT / "cluster" / "README.md").read_text(), HEADING)
    ports = dict(zip(PORTS, (str(free_port()) for _ in PORTS), strict=True))
    adapt = adapted(shell.log.parent, ports)
    answers = {}
    for number, entry in enumerate(entries):
        if entry.command.startswith("gan submit"):
            until(lambda: listening(int(ports["8265"])))  # as whoever types it has done by then
        code, answer = shell.run(adapt(entry.command))
        assert code == 0, f"{entry.command}\n{answer}"
        assert transcript.missing(entry.answer, answer) == [], f"{entry.command}\n{answer}"
        answers[number, entry.command.split()[1]] = answer
    submitted = [json.loads(answer.splitlines()[-1]) for (_, what), answer in answers.items() if what == "submit"]
    assert [(one["run"], one["attached"], one["exit_code"]) for one in submitted] == [
        ("nightly-2026-11-24", False, 0), ("nightly-2026-11-24", True, 0), ("nightly-2026-11-25", False, 0),
    ]  # fmt: skip
    listed = next(answer for (_, what), answer in answers.items() if what == "models")
    assert re.findall(r"^(gan-digits/\d+) +(\S+) .*(nightly-\S+)$", listed, re.MULTILINE) == [
        ("gan-digits/2", "challenger", "nightly-2026-11-25"), ("gan-digits/1", "champion", "nightly-2026-11-24"),
    ]  # fmt: skip
