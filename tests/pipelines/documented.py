"""What the documents say: their blocks, commands, paths, settings and links, and what is wrong with them."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import click

from gan_core.errors import ConfigurationError
from pipelines import config
from pipelines.config.keys import ARCHITECTURES, check_name
from tests.cluster import commands

ROOT = Path(__file__).parents[2]
GUIDES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
ANSWER, ROOMS = "done   digits-", "pipelines/ "  # how README's blocks begin that are no commands
TOPS = "configs|cluster|docs|gan_core|pipelines|tests"
SECTIONS = "data|noise|network|algorithm|extension|train|tune|evaluate|registry|notify|retention"


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


def given_commands(text: str) -> list[str]:
    """The `gan` commands that can be given as they stand: those of blocks, then those between backticks."""
    return [line for line in shell_lines(text) if line.startswith("gan ")] + [
        line for line in inline(text) if line.startswith("gan ") and "--help" not in line and _refused(line) is None
    ]


def wrong_commands(text: str) -> list[str]:
    """The `gan` commands that the program refuses, by their words or the settings they name.

    Where a command is only named, between backticks in a sentence, its arguments may be missing.
    """
    wrong = []
    for line, named in [*((line, False) for line in shell_lines(text)), *((line, True) for line in inline(text))]:
        if line.startswith("gan ") and "--help" not in line and (error := _refused(line)):
            missing = isinstance(error, click.MissingParameter)
            wrong += [] if missing and named else [f"{line}: {error}"]
    return wrong


def _refused(line: str) -> Exception | None:
    """Why the program refuses a command, if it does; a configuration that is there is read."""
    try:
        given = commands.parse(f"{line} list" if line in ("gan models", "gan runs") else line).params
        if Path(ROOT / given.get("configuration", "-")).is_file():
            config.load(str(ROOT / given["configuration"]), given["overrides"])
    except (click.UsageError, ConfigurationError) as error:
        return error
    return None


def broken_links(text: str, folder: Path) -> list[str]:
    """The relative links, pictures too, that lead nowhere."""
    broken = []
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        name, _, anchor = link.partition("#")
        if re.match(r"https?:", link) or not name:
            continue
        path = folder / name
        if not path.exists() or (anchor and anchor not in _anchors(path)):
            broken.append(link)
    return broken


def _anchors(path: Path) -> set[str]:
    """A document's headings as a link names them."""
    headings = re.findall(r"^#+ (.*)$", path.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


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


def rooms() -> Iterator[tuple[str, str]]:
    """The rooms there are, each with its first line."""
    for top in ("pipelines", "gan_core"):
        for path in [ROOT / top / "__init__.py", *(ROOT / top).glob("*/__init__.py")]:
            name = f"{path.parent.relative_to(ROOT / top).name or top}/"
            yield name, ast.get_docstring(ast.parse(path.read_text())).splitlines()[0].rstrip(".")
