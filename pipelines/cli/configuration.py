"""Command to look at a configuration: config."""

from collections.abc import Iterator, Mapping
from typing import Any

import click

from pipelines.cli.context import Context, common

SOURCES = {"set": "--set", "file": "file", "default": ""}


@click.command("config")
@click.argument("configuration", metavar="CONFIG")
@click.option("--set", "overrides", metavar="a.b=c", multiple=True, help="Replace a setting; can be given more than once.")  # fmt: skip
@common
def show_configuration(context: Context, configuration: str, overrides: tuple[str, ...]) -> None:
    """Show a configuration with every setting, and which of them the file or --set gave.

    What is printed is YAML that can be used as a configuration itself.

    \b
    Examples:
      gan config configs/digits.yaml
      gan config configs/mnist.yaml --set tune.space=rates --json
    """
    from pipelines import config

    text = config.read_text(configuration)  # once: a shell's <(command) is empty then
    plain = config.to_plain(config.load_text(text, configuration, overrides))
    document = config.parse_yaml(text, configuration) or {}
    by_hand: dict[str, Any] = {}
    for override in overrides:
        config.apply_override(document, override)
        config.apply_override(by_hand, override)
    given = {"set": list(config.flat(by_hand)), "file": list(config.flat(document))}
    settings = {
        name: {"value": value, "from": next((how for how, names in given.items() if _among(name, names)), "default")}
        for name, value in _leaves(plain)
    }
    context.emit_result(settings, "\n".join(_lines(settings)))


def _among(name: str, given: list[str]) -> bool:
    """Whether a setting was given, or a part of it."""
    return any(other == name or other.startswith(f"{name}.") for other in given)


def _leaves(section: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Settings by dotted name; a search space is one setting, whose keys have dots themselves."""
    for key, value in section.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) and value and name != "tune.space":
            yield from _leaves(value, f"{name}.")
        else:
            yield name, value


def _lines(settings: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """YAML, a line a setting, with a comment at what is no default."""
    import yaml

    open_sections: list[str] = []
    for name, setting in settings.items():
        *sections, key = name.split(".")
        for depth, section in enumerate(sections):
            if open_sections[: depth + 1] != sections[: depth + 1]:
                yield f"{'  ' * depth}{section}:"
        open_sections = sections
        value = yaml.safe_dump(setting["value"], default_flow_style=True, width=10**6).removesuffix("...\n").strip()
        source = SOURCES[setting["from"]]
        yield f"{'  ' * len(sections)}{key}: {value}" + (f"  # {source}" if source else "")
