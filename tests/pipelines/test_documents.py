"""README, docs and CONTRIBUTING: blocks run on a finished run; commands, settings, links, paths and rooms that exist."""

import ast
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from PIL import Image

from gan_core.errors import ConfigurationError
from pipelines import config
from pipelines.config.keys import ARCHITECTURES, check_name
from tests.cluster import commands
from tests.cluster.transcript import masked
from tests.pipelines.conftest import Finished, environment

ROOT = Path(__file__).parents[2]
GUIDES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
LINKED = [*GUIDES, *(ROOT / name for name in ("CHANGELOG.md", "SECURITY.md")), *ROOT.glob("*/README.md"), *ROOT.glob("tests/*/README.md")]  # fmt: skip
ANSWER, ROOMS = "done   digits-", "pipelines/ "  # how README's blocks begin that are no commands
TOPS = "configs|cluster|docs|gan_core|pipelines|tests"
SECTIONS = "data|noise|network|algorithm|extension|train|tune|evaluate|registry|notify|retention"
NOT_RUN = {  # by how a line begins
    "make run": "the slow test below",
    "make test": "it runs this test",
    "make setup": "it made what runs this test",
    "make check": "continuous integration runs it",
    "make bench": "it takes minutes; `make bench` itself",
    "make faults": "it takes hours; tests/faults has a slice",
    "make fuzz": "it takes an hour; tests/faults has a slice",
    "make sbom": "it downloads a tool",
    "make audit": "it downloads a tool, and asks a server",
    "pip install": "it downloads; test_entry.py installs the wheel, beside what is installed here",
    "gan run": "the slow test below, test_run_and_flow.py; here its settings are read",
    "gan tune": "test_tune.py; here its settings are read",
    "gan train": "test_train.py; here its settings are read",
    "gan evaluate gan-mnist@champion --inception": "weights of the user's own; test_inception.py",
    "gan evaluate --samples": "arrays of the user's own; test_evaluate.py",
    "gan evaluate tfd-0": "runs of the user's own; test_evaluate.py",
    "gan models compare": "two versions; test_champion_history.py",
    "gan models promote": "it changes what other tests read; test_champion_history.py",
    "gan models rollback": "it changes what other tests read; test_champion_history.py",
    "gan models archive": "it changes what other tests read; test_deleting.py",
    "gan models delete": "it changes what other tests read; test_deleting.py",
    "gan models watch": "it does not end; test_polling.py",
    "gan serve": "it does not end; test_serve.py",
    "curl": "it needs a server; test_serve.py",
}


def blocks(text: str, language: str = "") -> list[str]:
    """The fenced blocks of a language."""
    fenced = re.findall(r"^```(\w*)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    return [block for written_in, block in fenced if written_in == language]


def shell_lines(text: str) -> list[str]:
    """The lines of the blocks of commands, without what is said of them."""
    lines = [line for block in blocks(text) if not block.startswith((ANSWER, ROOMS)) for line in block.splitlines()]
    return [re.sub(r"\s+# .*", "", line) for line in lines]


def inline(text: str) -> list[str]:
    """What stands between backticks outside of blocks."""
    return re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE))


def anchors(path: Path) -> set[str]:
    """A document's headings as a link names them."""
    headings = re.findall(r"^#+ (.*)$", path.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def broken_links(text: str, folder: Path) -> list[str]:
    """The relative links, pictures too, that lead nowhere."""
    broken = []
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        name, _, anchor = link.partition("#")
        if re.match(r"https?:", link) or not name:
            continue
        path = folder / name
        if not path.exists() or (anchor and anchor not in anchors(path)):
            broken.append(link)
    return broken


def missing_paths(text: str) -> list[str]:
    """The paths and dotted names of ours that are not there; NAME stands for any."""
    found = re.findall(rf"(?<![\w/.-])((?:{TOPS})/[\w./-]*\w)", text)
    missing = [path for path in found if not (ROOT / re.sub(r"NAME.*", "", path)).exists()]
    for name in re.findall(rf"`((?:{TOPS})(?:\.\w+)+)`", text):
        module, _, attribute = name.rpartition(".")
        tree = ROOT / f"{module.replace('.', '/')}.py"
        defined = (
            {node.name for node in ast.parse(tree.read_text()).body if hasattr(node, "name")}
            if tree.exists()
            else set()
        )
        if attribute not in defined and not (ROOT / f"{name.replace('.', '/')}.py").exists():
            missing.append(name)
    return missing


def wrong_settings(text: str) -> list[str]:
    """The dotted names between backticks that no setting has."""
    wrong = []
    for name in re.findall(rf"^(?:--set )?((?:{SECTIONS})\.[\w.]+)", "\n".join(inline(text)), re.MULTILINE):
        try:
            check_name(name, "a document", ARCHITECTURES)
        except ConfigurationError:
            wrong.append(name)
    return wrong


def wrong_commands(text: str) -> list[str]:
    """The `gan` commands that the program refuses, by their words or the settings they name.

    Where a command is only named, between backticks in a sentence, its arguments may be missing.
    """
    wrong = []
    for line, named in [*((line, False) for line in shell_lines(text)), *((line, True) for line in inline(text))]:
        if not line.startswith("gan ") or "--help" in line:
            continue
        line = f"{line} list" if line in ("gan models", "gan runs") else line
        try:
            given = commands.parse(line).params
            if Path(ROOT / given.get("configuration", "-")).is_file():
                config.load(str(ROOT / given["configuration"]), given["overrides"])
        except click.MissingParameter:
            wrong += [] if named else [line]
        except (click.UsageError, ConfigurationError) as error:
            wrong.append(f"{line}: {error}")
    return wrong


def rooms() -> Iterator[tuple[str, str]]:
    """The rooms there are, each with its first line."""
    for top in ("pipelines", "gan_core"):
        for path in [ROOT / top / "__init__.py", *(ROOT / top).glob("*/__init__.py")]:
            name = f"{path.parent.relative_to(ROOT / top).name or top}/"
            yield name, ast.get_docstring(ast.parse(path.read_text())).splitlines()[0].rstrip(".")


def with_shapes(code: str) -> str:
    """An example that asks for the shapes that its comments promise."""
    promised = re.findall(r"^(\w+) = .*# (\(.*\))$", code, re.MULTILINE)
    return code + "".join(f"assert {name}.shape == {shape}, {name}.shape\n" for name, shape in promised)


def run_as_a_stranger(code: str, cwd: Path) -> None:
    """Run an example as somebody who has nothing of ours."""
    done = subprocess.run(
        [sys.executable, "-c", with_shapes(code)], cwd=cwd, env=environment(), capture_output=True, text=True, timeout=240
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def read_as_ours(text: str, finished: Finished) -> str:
    """A block or line with the finished run's names in the place of a user's."""
    own = {
        '["algorithm.steps=1600"], name="digits"': f"name={finished.name!r}",
        "configs/digits.yaml": str(finished.yaml),
    }
    for shown, ours in {**own, "gan-digits": "gan-small", "digits-1a2b3c4d": finished.name}.items():
        text = text.replace(shown, ours)
    return text


documents = pytest.mark.parametrize("path", GUIDES, ids=lambda path: path.stem)


@pytest.mark.parametrize("path", LINKED, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(path):
    assert broken_links(path.read_text(), path.parent) == []


@documents
def test_paths_settings_and_commands_exist(path):
    text = path.read_text()
    assert missing_paths(text) == []
    assert wrong_settings(text) == []
    assert wrong_commands(text) == []


@documents
def test_yaml_blocks_are_configurations(path):
    for block in blocks(path.read_text(), "yaml"):
        config.build(config.parse_yaml(block, path.name))


def test_what_is_not_there_is_found():
    """Each check above refuses what it is for."""
    assert broken_links("[a](b.md) ![c](docs/d.png) [e](README.md#no-such-heading)", ROOT) == [
        "b.md", "docs/d.png", "README.md#no-such-heading"
    ]  # fmt: skip
    assert missing_paths("in `gan_core/nothing.py`, `pipelines/NAME.py`, `gan_core.theory.nothing`, `gan_core.theory.value`") == [
        "gan_core/nothing.py", "gan_core.theory.nothing"
    ]  # fmt: skip
    assert wrong_settings("`tune.candidates` and `tune.candidate`") == ["tune.candidate"]
    assert wrong_commands("`gan sample`, `gan models`") == []
    lines = ["gan sample", "gan rnu", "gan run --fast x.yaml", "gan run configs/digits.yaml --set tune.keep=2"]
    assert len(wrong_commands("```\n" + "\n".join(lines) + "\n```\n")) == 4


def test_the_map_lists_exactly_the_rooms():
    (drawn,) = (block for block in blocks((ROOT / "README.md").read_text()) if block.startswith(ROOMS))
    listed = [tuple(line.strip().split("  ", 1)) for line in drawn.splitlines()]
    listed = [(name.strip(), text.strip()) for name, text in listed]
    flow = ast.get_docstring(ast.parse((ROOT / "pipelines" / "flow.py").read_text())).splitlines()[0].rstrip(".")
    assert sorted(listed) == sorted([*rooms(), ("flow.py", flow)])


def test_reasons_name_tests_that_exist():
    named = {name for reason in NOT_RUN.values() for name in re.findall(r"test_\w+\.py", reason)}
    assert [name for name in sorted(named) if not (Path(__file__).parent / name).exists()] == []


def test_readme_fits_two_screens():
    assert len((ROOT / "README.md").read_text().splitlines()) < 150


@documents
def test_every_block_is_run_or_named_with_a_reason(path):
    lines = [line for line in shell_lines(path.read_text()) if not line.startswith("gan ")]
    assert [line for line in lines if not line.startswith(tuple(NOT_RUN))] == []
    known = {"", "yaml", "python"}
    assert set(re.findall(r"^```(\w*)$", path.read_text(), re.MULTILINE)) <= known


@documents
def test_commands_run_on_a_finished_run(path, finished, here, tmp_path):
    (tmp_path / "gan-storage").symlink_to(finished.storage)
    (tmp_path / "my-images").mkdir()
    for number in range(40):
        Image.linear_gradient("L").resize((8, 8)).save(tmp_path / "my-images" / f"{number}.png")
    for line in shell_lines(path.read_text()):
        if line.startswith("gan ") and ("--dry-run" in line or not line.startswith(tuple(NOT_RUN))):
            answer = here(*shlex.split(read_as_ours(line, finished))[1:])
            assert answer.code == 0, f"{line}: {answer.err}"


@documents
def test_python_blocks_run_on_a_finished_run(path, finished, tmp_path, monkeypatch):
    """One draws from a model of any noise size: this one's is not the 16 of most configurations."""
    assert finished.record("tune")["chosen"].get("noise.size", 8) == 8
    (tmp_path / "gan-storage").symlink_to(finished.storage)
    monkeypatch.chdir(tmp_path)
    for block in blocks(path.read_text(), "python"):
        code = read_as_ours(block, finished)
        if code.startswith("import mlflow"):
            run_as_a_stranger(code, tmp_path)
        else:
            exec(compile(with_shapes(code), path.name, "exec"), {})


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("path", sorted((ROOT / "docs").rglob("*.ipynb")), ids=lambda path: path.stem)
def test_notebooks_run_from_top_to_bottom(path, tmp_path, monkeypatch):
    """Every cell, in order and in one namespace, as a notebook's; none is kept with its outputs."""
    import matplotlib

    matplotlib.use("Agg")
    monkeypatch.chdir(tmp_path)
    cells = [cell for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == "code"]
    namespace: dict[str, object] = {}
    for number, cell in enumerate(cells):
        exec(compile("".join(cell["source"]), f"{path.name}[{number}]", "exec"), namespace)
    assert cells
    assert not any(cell["outputs"] for cell in cells)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_make_run_answers_as_shown(tmp_path):
    """And it leaves what the first Python example reads."""
    run = subprocess.run(
        ["make", "--no-print-directory", "run"], cwd=ROOT, env=environment(GAN_STORAGE=str(tmp_path / "gan-storage")),
        stdout=subprocess.PIPE, text=True, timeout=1700,
    )  # fmt: skip
    assert run.returncode == 0
    (answer,) = (block for block in blocks((ROOT / "README.md").read_text()) if block.startswith(ANSWER))
    shown, answered = (
        [masked(line) for line in re.sub(r"digits-[0-9a-f]{8}", "RUN", text.replace(f"{tmp_path}/", "")).splitlines()]
        for text in (answer, run.stdout)
    )
    assert [line for line in answered if line in shown] == shown, run.stdout
    run_as_a_stranger(blocks((ROOT / "docs" / "python.md").read_text(), "python")[0], tmp_path)
    assert sorted(os.listdir(tmp_path)) == ["gan-storage"]
