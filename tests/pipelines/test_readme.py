"""README's code blocks, run as they are written on what `make run` made; what is not run is named with the reason."""

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cluster.transcript import masked
from tests.pipelines.conftest import environment

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"^```\w*\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)
# The blocks by how they begin, in their order.
COMMANDS, ANSWER, EXAMPLE, TREE = "make run ", "done   digits-", "import mlflow", "gan_core/ "
NOT_RUN = {
    "make test": "it runs this test",
    "pip install '.[pipelines]'": "it downloads; test_entry.py installs the wheel, beside what is installed here",
}


def block(begins: str) -> str:
    """The one block that begins so."""
    (found,) = (one for one in BLOCKS if one.startswith(begins))
    return found


def run_example(code: str, cwd: Path) -> None:
    """Run the Python example as somebody who has nothing of ours, and ask for the shape that its comment promises."""
    shape = re.search(r"# (\(.*\))", code)[1]
    code += f"assert images.shape == {shape}, images.shape\n"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=cwd, env=environment(), capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stderr


def test_every_block_is_run_or_named_with_a_reason():
    assert [one.splitlines()[0] for one in BLOCKS if not one.startswith((COMMANDS, ANSWER, EXAMPLE, TREE))] == []
    shell = [line.partition("#")[0].strip() for line in block(COMMANDS).splitlines()]
    assert [line for line in shell if line not in NOT_RUN] == ["make run"]


def test_the_python_example_draws_from_a_model_of_any_noise_size(finished, tmp_path):
    assert finished.record("tune")["chosen"].get("noise.size", 8) == 8  # not the 16 of most configurations
    (tmp_path / "gan-storage").symlink_to(finished.storage)
    run_example(block(EXAMPLE).replace("gan-digits", "gan-small"), tmp_path)


def test_the_tree_quotes_each_module_s_first_line():
    package, wrong, listed = "", [], set()
    for line in block(TREE).splitlines():
        name, _, text = line.partition("  ")
        if not line.startswith(" "):
            package = name.strip()
            continue
        name, text = line.strip().split("  ", 1)
        if not name.endswith(".py"):
            continue
        path = ROOT / package / name
        listed.add(path)
        if ast.get_docstring(ast.parse(path.read_text())).splitlines()[0].rstrip(".") != text.strip():
            wrong.append(line)
    assert wrong == []
    modules = {path for part in ("gan_core", "pipelines") for path in (ROOT / part).rglob("*.py")}
    assert {path for path in modules - listed if not path.name.startswith("__")} == set()


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_make_run_answers_as_shown_and_leaves_what_the_example_reads(tmp_path):
    run = subprocess.run(
        ["make", "--no-print-directory", "run"], cwd=ROOT, env=environment(GAN_STORAGE=str(tmp_path / "gan-storage")),
        stdout=subprocess.PIPE, text=True, timeout=1700,
    )  # fmt: skip
    assert run.returncode == 0
    shown, answered = (
        [masked(line) for line in re.sub(r"digits-[0-9a-f]{8}", "RUN", text.replace(f"{tmp_path}/", "")).splitlines()]
        for text in (block(ANSWER), run.stdout)
    )
    assert [line for line in answered if line in shown] == shown, run.stdout
    run_example(block(EXAMPLE), tmp_path)
    assert sorted(os.listdir(tmp_path)) == ["gan-storage"]
