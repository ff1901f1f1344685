"""The site of the documents: its made pages are the code's, and built it is whole, quiet and readable in a real browser."""

import hashlib
import re
import runpy
import subprocess
from pathlib import Path

import click
import pytest
import yaml

from tests.pipelines.conftest import environment, until
from tests.pipelines.documented import ROOT, blocks, rooms, wrong_commands
from tests.pipelines.headless_chromium import installed, open_tab
from tests.pipelines.test_cli import commands

MADE = runpy.run_path(str(ROOT / "docs" / "site" / "pages.py"))["made"]()
# What is wider than the window and does not scroll by itself.
WIDE = """[...document.querySelectorAll('article *')].filter((one) => one.getBoundingClientRect().right > innerWidth + 1
  && !one.closest('pre, .md-typeset__scrollwrap, .highlight')).map((one) => one.outerHTML.slice(0, 80))"""


def test_every_command_and_option_has_its_place():
    page = MADE["docs/reference/commands.md"]
    for name, command in commands():
        section = re.split(rf"^##+ {name}$", page, flags=re.MULTILINE)[1].partition("\n## ")[0]
        options = [parameter.opts[0] for parameter in command.params if isinstance(parameter, click.Option)]
        assert [option for option in options if f"`{option}" not in section and f", {option}" not in section] == [], (
            name
        )


def test_examples_of_every_help_are_commands():
    """The program takes each as it is written, and each setting it names is one."""
    lines = "\n".join(blocks(MADE["docs/reference/commands.md"], "text")).replace(" \\\n", " ").splitlines()
    examples = [line.partition(" | ")[0] for line in lines if line.startswith("gan ") and "[OPTIONS]" not in line]
    assert len(examples) > 50
    assert wrong_commands("```\n" + "\n".join(examples) + "\n```\n") == []


def test_architecture_is_the_rooms_and_the_contract():
    """Each room with its text, each module with its line, each layer of the contract in its order."""
    page = MADE["docs/architecture.md"]
    assert [text for _, text in rooms() if text not in page] == []
    contract = (ROOT / "pyproject.toml").read_text().split("[[tool.importlinter.contracts]]")[2]
    layers = [layer.split(" | ")[0] for layer in re.findall(r'^  "(.*)",$', contract, re.MULTILINE)]
    assert len(layers) > 8
    places = [page.index(f"- `{layer}` ") for layer in layers]
    assert places == sorted(places)
    assert "- `flow` The one orchestrator" in page


def test_a_notebooks_page_has_its_text_and_code():
    page = MADE["docs/notebooks/digits.md"]
    assert page.startswith("# From data to samples\n")
    assert "```python\nimport matplotlib.pyplot as plt\n" in page


def test_the_sites_script_is_the_published_one():
    """iframe-worker 1.0.4, by its SHA-256."""
    script = (ROOT / "docs" / "site" / "iframe-worker.js").read_bytes()
    assert hashlib.sha256(script).hexdigest() == "e8e412dbcfea9b7e31b5ffa288d7b6035915e714c542f4176a0cdbe262fc9609"


def test_every_document_has_its_place_in_the_navigation():
    """What is written or made is in the navigation, each once; nothing else is."""
    listed = re.findall(r"[\w/.-]+\.md", yaml.safe_dump(yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"]))
    written = [
        *ROOT.glob("*.md"),
        *ROOT.glob("docs/*.md"),
        ROOT / "cluster" / "README.md",
        *ROOT.glob("tests/*/README.md"),
    ]
    assert sorted(listed) == sorted([*(str(path.relative_to(ROOT)) for path in written), *MADE])


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, as `make docs` builds it: any warning is an error."""
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        ["make", "--no-print-directory", "docs", f"SITE={folder}"], cwd=ROOT, env=environment(), capture_output=True, text=True
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.skipif(installed() is None, reason="no Chromium on PATH")
def test_pages_fit_and_fetch_nothing(site):
    """At a telephone's width and a desk's, in both schemes: no complaint, no request beyond the folder, nothing too wide."""
    found = sorted(path for path in site.rglob("*.html") if path.name != "404.html")  # which only a server shows
    assert len(found) > 25
    with open_tab() as tab:
        for path in found:
            for width, scheme in ((390, "light"), (1280, "dark")):
                tab.open(path, width, scheme)
                assert tab.complaints == [], path
                assert [one for one in tab.requests if not one.startswith(site.as_uri())] == [], path
                assert tab.value("document.documentElement.scrollWidth") <= width, path
                assert tab.value(WIDE) == [], path
                dark = tab.value("document.body.getAttribute('data-md-color-scheme')")
                assert dark == {"light": "default", "dark": "slate"}[scheme]


@pytest.mark.skipif(installed() is None, reason="no Chromium on PATH")
def test_search_answers_from_a_folder(site):
    """Without a server: who asks for the promotion gate is led to its page."""
    with open_tab() as tab:
        tab.open(site / "docs" / "tour.html", 1280)
        tab.value("void document.querySelector('[data-md-component=search-query]').focus()")
        tab.call("Input.insertText", text="promotion gate")
        found = (
            '!!document.querySelector(\'.md-search-result__link[href*="registry.html"][href$="#the-promotion-gate"]\')'
        )
        until(lambda: tab.value(found), seconds=30)
