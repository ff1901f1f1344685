"""Commands that look registered models up: list, watch, show, compare, history."""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click

from gan_core.errors import RegistryError, visible
from pipelines.cli.context import Context, ListByDefault, common


@click.group(cls=ListByDefault)
def models() -> None:
    """Look registered models up, compare them, move the champion, put old versions away.

    \b
    Examples:
      gan models
      gan models show gan-digits@champion --json
      gan models compare gan-digits@challenger gan-digits@champion
      gan models rollback gan-digits
    """


# What the commands that ask the gate need: the data and the settings of a version's run, or others.
overridden = click.option(
    "--set", "overrides", metavar="a.b=c", multiple=True, help="Replace a setting of the run, such as data.root."
)


@models.command("list")
@click.option("--name", metavar="NAME", help="Only this model's versions.")
@click.option("--data-digest", metavar="DIGEST", help="Only versions trained and scored on these data.")
@click.option("--config-digest", metavar="DIGEST", help="Only versions made from this configuration.")
@click.option("--best", metavar="METRIC", help="Only each model's best version by this metric, such as log_likelihood.")
@common
def models_list(
    context: Context, name: str | None, data_digest: str | None, config_digest: str | None, best: str | None
) -> None:
    """All versions of all models, newest first, or those that are asked for.

    \b
    Examples:
      gan models list --json
      gan models list --name gan-digits --best log_likelihood
      gan models list --data-digest 3f2a9c --json
    """
    registry = open_lookup(context)
    versions = [version.to_json() for version in registry.find(name, data_digest, config_digest, best)]
    if not versions:
        context.log("no registered models")
    context.emit_result({"models": versions}, "\n".join(map(_line, versions)))


@models.command("watch")
@click.argument("reference", metavar="NAME@ALIAS")
@click.option(
    "--interval", type=click.FloatRange(min=0, min_open=True), default=30.0, show_default=True,
    help="Seconds between looks.",
)  # fmt: skip
@click.option("--once", is_flag=True, help="Say what it is now, and end.")
@common
def models_watch(context: Context, reference: str, interval: float, once: bool) -> None:
    """Print the version an alias names, now and whenever it is another one, until Ctrl-C.

    A registry that does not answer is asked again, ever more rarely. With --json, a line is an object.

    \b
    Examples:
      gan models watch gan-digits@champion
      gan models watch gan-digits@champion --json | while read -r champion; do ./deploy "$champion"; done
    """
    from contextlib import suppress

    with suppress(KeyboardInterrupt):
        for version in open_lookup(context).watch(reference, interval, context.trouble):
            context.emit_result(version.to_json(), f"{version}  {visible(', '.join(version.aliases))}")
            if once:
                return


@models.command("show")
@click.argument("reference", metavar="REF")
@common
def models_show(context: Context, reference: str) -> None:
    """One version: NAME@ALIAS or NAME/VERSION.

    \b
    Example:
      gan models show gan-digits@champion --json
    """
    version = open_lookup(context).resolve(reference).to_json()
    lines = [f"{version['name']}/{version['version']}  {visible(', '.join(version['aliases']))}"]
    if "unreadable" in version:
        lines.append(f"  {'unreadable':<24} {version['unreadable']}")
    shown = {**version["metrics"], **version["tags"]}
    lines += [
        f"  {visible(key):<24} {_rounded(str(value))}" for key, value in sorted(shown.items()) if key != "metrics"
    ]
    context.emit_result(version, "\n".join(lines))


@models.command("compare")
@click.argument("reference", metavar="A")
@click.argument("other", metavar="B")
@overridden
@common
def models_compare(context: Context, reference: str, other: str, overrides: tuple[str, ...]) -> None:
    """The gate's paired test of two versions, in both directions; it moves nothing.

    On the gate's points of A's data set, with the settings of A's run where the storage has it.

    \b
    Examples:
      gan models compare gan-digits@challenger gan-digits@champion
      gan models compare gan-mnist/7 gan-mnist/3 --set data.root=/data --json
    """
    from dataclasses import asdict

    from pipelines.registry.promotion_gate import compare_contenders, contender

    registry = open_registry(context)
    versions = list(map(registry.resolve, (reference, other)))
    configuration, dataset = gate_inputs(context, versions[0], overrides)
    gate, samples = configuration.registry.gate, configuration.evaluate.samples
    rivals = [contender(registry, version) for version in versions]
    rows, tests = compare_contenders(rivals, dataset, gate, samples, configuration.seed)
    directions = [{**asdict(test), "better": test.better_by(gate.min_margin)} for test in tests]
    lines = [
        f"{row['reference']:<24} {row['log_likelihood']:8.2f} ± {row['standard_error']:.2f} nats on the gate's points, "
        f"sigma {row['sigma']:.4f}, coverage {row['coverage']:.2f}"
        for row in rows
    ]
    for row, against, test in ((rows[0], rows[1], directions[0]), (rows[1], rows[0], directions[1])):
        lines.append(
            f"{row['reference']} over {against['reference']}: {test['difference']:+.2f} ± {test['standard_error']:.2f} nats, "
            f"lower bound {test['lower_bound']:+.2f} at {test['confidence']:.0%}: "
            f"{'better' if test['better'] else 'not better'} by more than {gate.min_margin:g}"
        )
    result = {
        "a": rows[0],
        "b": rows[1],
        "a_over_b": directions[0],
        "b_over_a": directions[1],
        "min_margin": gate.min_margin,
        "samples": samples,
        "data": dataset.name,
        "data_digest": dataset.digest,
    }
    context.emit_result(result, "\n".join(lines))


@models.command("history")
@click.argument("name", metavar="NAME")
@common
def models_history(context: Context, name: str) -> None:
    """Every move of a model's champion: when, from, to, by what and why.

    \b
    Example:
      gan models history gan-digits --json
    """
    from pipelines.registry.champion_history import entries

    moves = entries(open_lookup(context), name)
    lines = [
        f"unreadable {visible(move['tag'])}: {visible(move['unreadable'])}"
        if "unreadable" in move
        else f"{visible(move['when'])}  {visible(move['from'] or '-')} -> {visible(move['to'] or '-')}  "
        f"{visible(move['by']):<8}  {visible(move['reason'])}"
        for move in moves
    ]
    if not lines:
        context.log(f"{name} has had no champion yet")
    context.emit_result({"name": name, "moves": moves}, "\n".join(lines))


def _rounded(value: str) -> str:
    """A tag for people: a number of many digits is rounded to six, all else is as it is."""
    return f"{float(value):.6g}" if re.fullmatch(r"-?\d+\.\d{5,}(e[-+]?\d+)?", value) else visible(value)


def _line(version: dict[str, Any]) -> str:
    """A version in one line; what others wrote in it can do nothing to a terminal."""
    named = f"{visible(version['name'])}/{version['version']:<4} {visible(','.join(version['aliases'])) or '-':<22} "
    if "unreadable" in version:
        return f"{named}{version['unreadable']}"
    value, covered = (version["metrics"].get(name) for name in ("log_likelihood", "coverage"))
    score = (
        f"{'-' if value is None else f'{value:.1f}':>8} nats  coverage {'-' if covered is None else f'{covered:.2f}'}"
    )
    return f"{named}{score}  run {visible(version['tags'].get('run', '-'))}"


def open_lookup(context: Context) -> Any:
    """The registry the command is to use, to be read alone: at once, where it is a database in a file."""
    from pipelines.registry import Lookup

    return Lookup.at(context.tracking_uri())


def open_registry(context: Context) -> Any:
    """The registry the command is to use; it must be there."""
    from pipelines.registry import Registry

    return Registry(context.tracking_uri())


@contextmanager
def registry_to_delete_from(context: Context) -> Iterator[Any]:
    """The same, for a command that archives or deletes: one that answers slowly counts as one that does not."""
    from pipelines.registry.mlflow_client import without_waiting

    with without_waiting():
        yield open_registry(context)


def gate_inputs(context: Context, version: Any, overrides: tuple[str, ...]) -> tuple[Any, Any]:
    """The configuration and the data set a version is judged with: its run's, or the defaults on its data."""
    from gan_core.errors import ConfigurationError
    from pipelines import config
    from pipelines.data.streaming import load
    from pipelines.runs.run import Run

    try:
        run = Run.open(version.tags.get("run", ""), context.storage)
        document, reader = config.to_plain(run.configuration), run.name
    except ConfigurationError:
        data = {"name": version.tags["data"]} if "data" in version.tags else {}
        try:
            document, reader = {"data": json.loads(version.tags.get("data_settings", json.dumps(data)))}, "registry"
        except ValueError as error:
            raise RegistryError(
                "unreadable data_settings", version, str(error), "JSON; or --set data.name and the storage of its run"
            ) from error
        context.log(f"run of {version} is not in {context.storage.uri}: its data set, and default settings of the gate")
    for override in overrides:
        config.apply_override(document, override)
    configuration = config.resolve(config.build(document, str(version)), version.tags.get("run", ""))
    return configuration, load(configuration.data, context.storage, context.log, reader)
