"""`gan` from a built wheel: in an empty environment, with click alone, and with all it needs."""

import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from dataclasses import replace
from pathlib import Path

import click
import pytest

from tests.pipelines.conftest import Answer, environment, failed

ROOT = Path(__file__).parents[2]
EXTRA = "pip install 'adversarial-nets-on-ray[pipelines]'"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel that `pip install .` would build."""
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run([sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder], cwd=ROOT, check=True)
    (built,) = folder.glob("*.whl")
    return built


class Environment:
    """An environment with the wheel, and nothing it asks for."""

    def __init__(self, folder, wheel):
        venv.create(folder, symlinks=True)
        self.python = folder / "bin" / "python"
        install = ("uv", "pip", "install", "--quiet", "--no-deps", "--offline", "--no-cache", "--python", self.python)
        subprocess.run([sys.executable, "-m", *install, wheel], check=True)
        self.packages = next(folder.glob("lib/python*/site-packages"))

    def run(self, *command, cwd):
        done = subprocess.run(
            [self.python.with_name(command[0]), *command[1:]],
            cwd=cwd,
            env=environment(),
            capture_output=True,
            text=True,
        )
        return Answer(done.returncode, done.stdout, done.stderr)


@pytest.fixture(scope="module")
def empty(wheel, tmp_path_factory):
    """Without anything."""
    return Environment(tmp_path_factory.mktemp("empty"), wheel)


@pytest.fixture(scope="module")
def with_click(wheel, tmp_path_factory):
    """With click, as another package may have brought it."""
    made = Environment(tmp_path_factory.mktemp("with-click"), wheel)
    shutil.copytree(Path(click.__file__).parent, made.packages / "click")
    return made


@pytest.fixture(scope="module")
def full(wheel, tmp_path_factory):
    """With all that is installed here, but for the checkout."""
    made = Environment(tmp_path_factory.mktemp("full"), wheel)
    (made.packages / "here.pth").write_text(sysconfig.get_path("purelib"))
    return made


def test_wheel_has_what_commands_run_and_no_more(wheel):
    """The wheel has all modules and files that documented commands run, and no more."""
    names = set(zipfile.ZipFile(wheel).namelist())
    modules = {str(path.relative_to(ROOT)) for part in ("gan_core", "pipelines", "cluster") for path in (ROOT / part).rglob("*.py")}  # fmt: skip
    assert modules | {"pipelines/starter.yaml"} <= names
    assert {name for name in names if name.startswith("cluster/")} <= modules
    assert {name.split("/")[0] for name in names if ".dist-info" not in name} == {"gan_core", "pipelines", "cluster"}


@pytest.mark.parametrize("arguments", [(), ("--help",), ("run", "gan.yaml"), ("run", "gan.yaml", "--json")])
def test_without_its_extra_gan_names_it_in_one_line(arguments, empty, tmp_path):
    answer = empty.run("gan", *arguments, cwd=tmp_path)
    failed(answer, 2, "not installed (click)", EXTRA)
    assert len(answer.err.splitlines()) == 1
    assert bool(answer.out) == ("--json" in arguments)


@pytest.mark.parametrize("place", ["empty", "with_click"])
def test_doctor_needs_the_standard_library_alone(place, request, tmp_path):
    made = request.getfixturevalue(place)
    answer = made.run("gan", "doctor", "--storage", "there", cwd=tmp_path)
    failed(replace(answer, out=""), 2, "not ready (gan doctor)", EXTRA)
    told = {line.split()[1]: line for line in answer.out.splitlines()}
    for part in ("torch", "ray", "pyarrow", "gpus", "storage", "tracking"):
        assert told[part].startswith("fail "), told[part]
        assert EXTRA in told[part]
    for part in ("python", "cores", "memory", "/dev/shm"):
        assert not told[part].startswith("fail"), told[part]
    as_json = made.run("gan", "doctor", "--json", cwd=tmp_path)
    failed(as_json, 2, "not ready (gan doctor)")
    assert [one["part"] for one in as_json.json["findings"]] == list(told)
    mistaken = made.run("gan", "doctor", "--stort", cwd=tmp_path)
    assert (mistaken.code, "Traceback" in mistaken.err) == (2, False)
    assert list(tmp_path.iterdir()) == []


def test_what_is_missing_later_is_named_too(with_click, tmp_path):
    (tmp_path / "gan.yaml").write_text("data: {name: digits}\n")
    failed(with_click.run("gan", "run", "gan.yaml", cwd=tmp_path), 2, "not installed (", EXTRA)
    failed(with_click.run("gan", "models", cwd=tmp_path), 2, "not installed (", EXTRA)
    assert with_click.run("gan", "--help", cwd=tmp_path).code == 0


@pytest.mark.parametrize(("place", "lacking"), [("empty", "click"), ("with_click", "psycopg")])
def test_team_service_names_its_extra_in_one_line(place, lacking, request, tmp_path):
    """Without its packages the team's service names the extra to install in one line, and writes nothing."""
    answer = request.getfixturevalue(place).run("python", "-m", "cluster.local_service", "start", "F", cwd=tmp_path)
    failed(answer, 2, f"not installed ({lacking})", "adversarial-nets-on-ray[services]")
    assert list(tmp_path.iterdir()) == []


def test_with_all_it_needs_the_wheel_is_ready(full, tmp_path):
    where = full.run(
        "python", "-c", "import pipelines, cluster; print(pipelines.__file__, cluster.__file__)", cwd=tmp_path
    )
    assert where.out.count(str(full.packages)) == 2
    ready = full.run("gan", "doctor", cwd=tmp_path)
    assert (ready.code, ready.out.splitlines()[-1]) == (0, "ready"), ready
    assert full.run("gan", "init", cwd=tmp_path).code == 0
    planned = full.run("gan", "run", "gan.yaml", "--dry-run", cwd=tmp_path)
    assert (planned.code, "would do tune, train" in planned.out) == (0, True), planned
    assert full.run("python", "-m", "cluster.local_service", "--help", cwd=tmp_path).code == 0


def test_the_prompt_comes_right_after_the_answer():
    """It came seconds later: what others have registered is still called, but nothing is taken apart."""
    program = """
import atexit, sys
import pipelines.cli
class Kept:
    def __del__(self): print("taken apart")
kept = Kept()
@pipelines.cli.cli.command()
def work(): atexit.register(print, "called")
sys.argv = ["gan", "work"]
pipelines.cli.process()
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment())
    assert (ended.returncode, ended.stderr) == (0, "")
    assert "called" in ended.stdout
    assert "taken apart" not in ended.stdout
