"""README, docs and CONTRIBUTING: blocks run on a finished run; commands, settings, links, paths and rooms that exist."""

import ast
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from PIL import Image

from pipelines import config
from tests.cluster.transcript import masked
from tests.pipelines.conftest import Finished, environment
from tests.pipelines.documented import (
    ANSWER,
    GUIDES,
    ROOMS,
    ROOT,
    blocks,
    broken_links,
    given_commands,
    missing_paths,
    rooms,
    shell_lines,
    wrong_commands,
    wrong_settings,
)

LINKED = [*GUIDES, *(ROOT / name for name in ("CHANGELOG.md", "SECURITY.md")), *ROOT.glob("*/README.md"), *ROOT.glob("tests/*/README.md")]  # fmt: skip
NOT_OURS = {  # lines of blocks that are no `gan` command, by how they begin
    "make run": "the slow test below",
    "make test": "it runs this test",
    "make setup": "it made what runs this test",
    "make check": "continuous integration runs it",
    "make docs": "test_site.py",
    "make bench": "it takes minutes; `make bench` itself",
    "make faults": "it takes hours; tests/faults has a slice",
    "make fuzz": "it takes an hour; tests/faults has a slice",
    "make sbom": "it downloads a tool",
    "make audit": "it downloads a tool, and asks a server",
    "pip install": "it downloads; test_entry.py installs the wheel, beside what is installed here",
    "export PATH": "the commands here are found without",
    "curl": "it needs a server; test_serve.py",
}
NAMED = ("gan evaluate", "gan runs prune", "gan init")  # in sentences, where they stand for what they do
ELSEWHERE = {  # commands that are too heavy here, or change what others read: the test that gives each, by how it begins
    "gan run": "test_documents.py::test_make_run_answers_as_shown",
    "gan tune": "test_killed_search.py::test_killed_search_ends_with_the_same_table",
    "gan train": "test_warm_start.py::test_continued_searched_run_equals_one_training",
    "gan submit": "test_ray_jobs.py::test_resubmitted_name_is_one_version",
    "gan serve": "test_serve.py::test_served_samples_equal_gan_sample",
    "gan register": "test_run_and_flow.py::test_kill_at_every_stage_keeps_the_results",
    "gan evaluate gan-digits@champion --features": "test_cli.py::test_evaluating_again_gives_the_recorded_scores",
    "gan evaluate REF --features": "test_cli.py::test_evaluating_again_gives_the_recorded_scores",
    "gan evaluate gan-mnist@champion --inception": "test_inception.py::test_command_scores_a_run_and_names_fid",
    "gan evaluate REF --inception": "test_inception.py::test_command_scores_a_run_and_names_fid",
    "gan evaluate --samples": "test_cli.py::test_arrays_are_scored_as_by_the_function",
    "gan evaluate tfd-0": "test_data_sets_end_to_end.py::test_five_folds_are_scored_alone_and_together",
    "gan models compare": "test_promotion_gate.py::test_models_commands_compare_promote_and_roll_back",
    "gan models promote": "test_promotion_gate.py::test_models_commands_compare_promote_and_roll_back",
    "gan models rollback": "test_promotion_gate.py::test_models_commands_compare_promote_and_roll_back",
    "gan models archive": "test_promotion_gate.py::test_models_commands_compare_promote_and_roll_back",
    "gan models delete": "test_promotion_gate.py::test_models_commands_compare_promote_and_roll_back",
    "gan models watch": "test_polling.py::test_watch_prints_each_change_and_ends_with_ctrl_c",
    "gan runs stop": "test_status.py::test_second_start_is_refused_and_stop_saves_the_step",
    "gan impute": "test_extensions.py::test_completions_keep_observed_pixels",
    "gan reconstruct": "test_train_encoder.py::test_reconstruct_is_the_same_for_run_and_version",
    "gan classify": "test_train_encoder.py::test_classify_shows_every_feature_set",
    "gan figure classes": "test_extensions.py::test_a_figure_has_a_row_for_each_class",
    "gan figure fig1": "test_answers.py::test_ended_command_says_so_in_an_object",
    "gan sample REF --condition": "test_extensions.py::test_class_is_chosen_by_label_or_drawn",
    "gan sample gan-digits-conditional@champion --condition": "test_extensions.py::test_class_is_chosen_by_label_or_drawn",
}


def with_shapes(code: str) -> str:
    """An example that asks for the shapes that its comments promise."""
    promised = re.findall(r"^(\w+) = .*# (\(.*\))$", code, re.MULTILINE)
    return code + "".join(f"assert {name}.shape == {shape}, {name}.shape\n" for name, shape in promised)


def run_as_a_stranger(code: str, cwd: Path) -> None:
    """Run an example in a process of its own, as somebody who has nothing of ours."""
    done = subprocess.run(
        [sys.executable, "-c", with_shapes(code)], cwd=cwd, env=environment(), capture_output=True, text=True, timeout=240
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def read_as_ours(text: str, finished: Finished) -> str:
    """A block or line with the finished run's names in the place of a user's."""
    own = {
        '["algorithm.steps=1600"], name="digits"': f"name={finished.name!r}",
        "configs/digits.yaml": str(finished.yaml),
        "gan-digits": "gan-small",
        "gan-my-images@challenger": "gan-small@challenger",
        "digits-1a2b3c4d": finished.name,
    }
    for shown, ours in own.items():
        text = text.replace(shown, ours)
    named = {
        "CONFIG": str(finished.yaml),
        "REF": "gan-small@champion",
        "RUN": finished.name,
        "NAME": "gan-small",
        "FOLDER": "my-images",
    }
    named |= {"NAME@ALIAS": "gan-small@champion"}
    return re.sub(r"(?<= )(NAME@ALIAS|[A-Z]+)(?= |$)", lambda word: named.get(word[0], word[0]), text)


def begins_with(line: str, table: dict[str, str]) -> str | None:
    """The entry of a table that a line begins with, word by word."""
    return next((key for key in table if f"{line} ".startswith(f"{key} ")), None)


class User(NamedTuple):
    """Somebody's folder, where documented commands are given, and those that were."""

    folder: Path
    given: set[str]


@pytest.fixture(scope="module")
def user(finished: Finished, tmp_path_factory: pytest.TempPathFactory) -> User:
    """Somebody who has a finished run, a folder of pictures and an array of them."""
    folder = tmp_path_factory.mktemp("user")
    (folder / "gan-storage").symlink_to(finished.storage)
    (folder / "configs").symlink_to(ROOT / "configs")
    (folder / "my-images").mkdir()
    for number in range(40):
        Image.linear_gradient("L").resize((8, 8)).save(folder / "my-images" / f"{number}.png")
    np.save(folder / "my-images.npy", np.random.randint(0, 256, (60, 12, 12), np.uint8))
    return User(folder, set())


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
    named = {name for reason in NOT_OURS.values() for name in re.findall(r"test_\w+\.py", reason)}
    assert [name for name in sorted(named) if not (Path(__file__).parent / name).exists()] == []


def test_every_configuration_has_its_line():
    """With its steps and candidates."""
    line = r"^\| `(\w+)\.yaml` \|[^|]+\|[^|]+\| ([\d,]+) \| (\d*) ?\|"
    lines = re.findall(line, (ROOT / "docs" / "configurations.md").read_text(), re.MULTILINE)
    loaded = ((path.stem, config.load(str(path), ())) for path in (ROOT / "configs").glob("*.yaml"))
    assert sorted((name, int(steps.replace(",", "")), int(count or 0)) for name, steps, count in lines) == sorted(
        (name, each.algorithm.steps, each.tune.candidates) for name, each in loaded
    )


def test_readme_fits_two_screens():
    assert len((ROOT / "README.md").read_text().splitlines()) < 150


@documents
def test_every_block_is_run_or_named_with_a_reason(path):
    lines = [line for line in shell_lines(path.read_text()) if not line.startswith("gan ")]
    assert [line for line in lines if not line.startswith(tuple(NOT_OURS))] == []
    known = {"", "yaml", "python"}
    assert set(re.findall(r"^```(\w*)$", path.read_text(), re.MULTILINE)) <= known


@documents
def test_commands_run_on_a_finished_run(path, finished, here, user, monkeypatch):
    """Each runs here, once, or is given by another test; of the pipeline's the plan is asked for, where its data are here."""
    monkeypatch.chdir(user.folder)
    for line in given_commands(path.read_text()):
        ours = read_as_ours(line, finished)
        if begins_with(line, ELSEWHERE):
            if not re.match(r"gan (run|tune|train) (\S*small|gan|spots)\.yaml(?!.*(--continue-from|learn_from))", ours):
                continue
            ours = f"{ours.replace(' --dry-run', '')} --dry-run --quiet"
        if line not in NAMED and ours not in user.given:
            answer = here(*shlex.split(ours)[1:])
            assert answer.code == 0, f"{line}: {answer.err}"
            user.given.add(ours)


def test_what_is_not_run_here_is_given_elsewhere():
    """Each test that is named is there, and the words of its command are among its file's own."""
    for command, where in ELSEWHERE.items():
        file, _, test = where.partition("::")
        tree = ast.parse((Path(__file__).parent / file).read_text())
        assert test in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}, where
        words = [word for word in command.split()[1:] if not re.match(r"[A-Z]|\S*@|tfd-", word)]
        if file != Path(__file__).name:
            texts = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)}
            assert [word for word in words if word not in texts] == [], command


def test_a_run_that_was_moved_is_registered_anew(finished, registry_uri, here, tmp_path):
    """As docs/upgrade.md has it: in another place and another registry, its model is the one it was."""
    shutil.copytree(finished.storage / "runs", tmp_path / "moved" / "runs")
    where = ("--storage", "moved", "--tracking-uri", registry_uri)
    assert here("register", finished.name, *where).code == 0
    assert here("sample", "gan-small@champion", "-n", 4, "--output", "moved.npy", *where).code == 0
    assert here("sample", finished.name, "-n", 4, "--output", "run.npy", "--storage", finished.storage).code == 0
    assert (tmp_path / "moved.npy").read_bytes() == (tmp_path / "run.npy").read_bytes()


@documents
def test_python_blocks_run_on_a_finished_run(path, finished, tmp_path, monkeypatch):
    """One draws from a model of any noise size: this one's is not the 16 of most configurations."""
    assert finished.record("tune")["chosen"].get("noise.size", 8) == 8
    (tmp_path / "gan-storage").symlink_to(finished.storage)
    monkeypatch.chdir(tmp_path)
    for block in blocks(path.read_text(), "python"):
        code = read_as_ours(block, finished)
        if code.startswith("import mlflow") or "OBJECTIVES[" in code:  # whose change no other test should see
            run_as_a_stranger(code, tmp_path)
        else:
            exec(compile(with_shapes(code), path.name, "exec"), {"__name__": path.stem})


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
