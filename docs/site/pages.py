"""The site of `make docs`: each document under its path in the repository, and pages made of the code.

A document keeps its path, so that its links work here as on a forge. Made at each build, and so never old: every
command's help, the Python reference, the rooms with the import contract that holds them, and the notebook.
"""

import ast
import inspect
import json
import sys
import textwrap
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files

ROOT = Path(__file__).parents[2]
WRITTEN = (
    "*.md", "LICENSE", "docs/*.md", "docs/images/*.png", "docs/notebooks/*.ipynb", "docs/site/*.css", "docs/site/iframe-worker.js",
    "docs/site/*-LICENSE", "cluster/README.md", "tests/*/README.md", "tests/paper/*.png",
)  # fmt: skip
PIPELINE = ("flow.run", "flow.Outcome", "registry.Registry", "registry.Lookup", "registry.ModelVersion")  # for Python


def on_files(files: "Files", config: "MkDocsConfig") -> "Files":
    """The theme's own files, the documents by their paths, and what is made."""
    from mkdocs.structure.files import File

    for file in [file for file in files if file.src_dir == config.docs_dir]:
        files.remove(file)
    for path in sorted(path for pattern in WRITTEN for path in ROOT.glob(pattern)):
        files.append(File(str(path.relative_to(ROOT)), str(ROOT), config.site_dir, config.use_directory_urls))
    for name, text in made().items():
        files.append(File.generated(config, name, content=text))
    return files


def on_page_markdown(markdown: str, **about: object) -> str:
    """A document's text; what leads to a notebook leads to its page."""
    return markdown.replace(".ipynb)", ".md)")


def made() -> dict[str, str]:
    """The pages that are made, by path."""
    notebooks = ROOT.glob("docs/notebooks/*.ipynb")
    return {
        "docs/reference/commands.md": commands(),
        "docs/reference/python.md": python(),
        "docs/architecture.md": architecture(),
        **{str(path.relative_to(ROOT).with_suffix(".md")): notebook(path) for path in notebooks},
    }


def commands() -> str:
    """The help of every command, as `--help` has it."""
    sys.path.insert(0, str(ROOT))
    from pipelines.cli import cli

    return "\n".join(["# Commands, option by option\n", *_help(cli, "gan")])


def _help(command: click.Command, name: str) -> Iterator[str]:
    """A command's heading, usage, text, examples and options, and those of its subcommands."""
    context = click.Context(command, info_name=name)
    yield f"{'##' if name.count(' ') < 2 else '###'} {name}\n"
    yield f"```text\n{' '.join([name, *command.collect_usage_pieces(context)])}\n```\n"
    # \b begins lines that stay as they are.
    first, *kept = inspect.cleandoc(command.help or "").split("\b\n")
    yield f"{first}\n"
    for block in kept:
        title, _, lines = block.partition("\n")
        yield f"{title}\n\n```text\n{textwrap.dedent(lines).strip()}\n```\n"
    for names, text in filter(None, (option.get_help_record(context) for option in command.get_params(context))):
        if text:  # else it is an argument, which the usage has
            yield f"`{names}`\n:   {text}\n"
    for subcommand in getattr(command, "commands", {}).values():
        yield from _help(subcommand, f"{name} {subcommand.name}")


def python() -> str:
    """The public names of both packages, whose docstrings mkdocstrings reads from the sources."""
    import gan_core

    core = sorted(f"gan_core.{module}.{name}" for name, module in gan_core.MODULES.items())
    return "\n\n".join([
        "# Python, name by name", "How to use these: [From Python](../python.md).",
        "## import gan_core as gan", *(f"::: {name}" for name in core),
        "## pipelines", *(f"::: pipelines.{name}" for name in PIPELINE),
    ])  # fmt: skip


def architecture() -> str:
    """The rooms, layer by layer as the import contract has them, and what each module of theirs is for."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    lines = [
        "# Architecture\n",
        "What `make check` holds the code to. A layer imports only from those below it; what stands in one layer does not",
        "see its neighbours. A room is a folder, and its text says what enters and what leaves.\n",
    ]
    for contract in contracts:
        lines += [f"## {contract['name']}\n"]
        if contract["type"] == "layers":
            layers = ([name.strip() for name in layer.split("|")] for layer in contract["layers"])
            boxes = ("<br>".join(f"`{name}` {_about(name)[0]}" for name in layer) for layer in layers)
            lines += ['<div class="layers" markdown>\n', *(f"- {box}" for box in boxes), "\n</div>\n"]
        else:
            lines += [
                f"`gan_core` imports none of {', '.join(f'`{name}`' for name in contract['forbidden_modules'])}.\n"
            ]
    lines += ["## Every room, module by module\n"]
    for package in ("pipelines", "gan_core"):
        for room in sorted(path.parent for path in ROOT.glob(f"{package}/**/__init__.py")):
            name = str(room.relative_to(ROOT)).replace("/", ".")
            lines += [f"### {name}\n", *_about(name), ""]
            modules = sorted(path.stem for path in room.glob("*.py") if not path.stem.startswith("__"))
            lines += [*(f"- `{module}` {_about(f'{name}.{module}')[0]}" for module in modules), ""]
    return "\n".join(lines)


def _about(name: str) -> list[str]:
    """The docstring of a module or a package, in lines."""
    path = ROOT / name.replace(".", "/")
    source = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    return (ast.get_docstring(ast.parse(source.read_text())) or "").splitlines()


def notebook(path: Path) -> str:
    """A notebook as a page: its text, and its code in blocks."""
    cells = ((cell["cell_type"], "".join(cell["source"])) for cell in json.loads(path.read_text())["cells"])
    return "\n\n".join(f"```python\n{source}\n```" if kind == "code" else source for kind, source in cells)
