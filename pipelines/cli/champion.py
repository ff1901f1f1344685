"""Commands that change the registry: promote, rollback, archive, delete, prune."""

import click

from gan_core.errors import ConfigurationError
from pipelines.cli.context import Context, common
from pipelines.cli.models import gate_inputs, open_registry, overridden, registry_to_delete_from


@click.command("promote")
@click.argument("reference", metavar="REF")
@click.option("--force", is_flag=True, help="Without asking the gate; the history says so.")
@click.option("--reason", default="by hand", show_default=True, help="Why, with --force; kept in the history.")
@overridden
@common
def promote(context: Context, reference: str, force: bool, reason: str, overrides: tuple[str, ...]) -> None:
    """Make a version champion if the gate finds it better; that it is not is no error, that it has collapsed is.

    \b
    Examples:
      gan models promote gan-digits/7
      gan models promote gan-digits/3 --force --reason "7 draws no fours" --json
    """
    from pipelines.registry import CHAMPION
    from pipelines.registry.champion_history import ChampionHistory
    from pipelines.registry.promotion_gate import Verdict, collapsed_model, judge_version

    registry = open_registry(context)
    version = registry.resolve(reference)
    history = ChampionHistory(registry, version.name)
    if force:
        history.force(version, reason)
        verdict = Verdict(True, f"forced: {reason}")
    else:
        configuration, dataset = gate_inputs(context, version, overrides)
        verdict = history.promote(
            version, lambda champion: judge_version(registry, version, champion, configuration, dataset)
        )
    holder = registry.holder(version.name, CHAMPION)
    result = {
        "name": version.name,
        "version": version.version,
        "promoted": verdict.promoted,
        "champion": holder.version if holder else None,
        "by": "force" if force else "gate",
        "reason": verdict.reason,
        "test": verdict.test,
        "diagnosis": verdict.diagnosis,
    }
    context.emit_result(
        result,
        f"{version} is {'champion' if verdict.promoted else 'not promoted'}: {verdict.reason}",
        collapsed_model(str(version), verdict.reason) if verdict.collapsed else None,
    )


@click.command("rollback")
@click.argument("name", metavar="NAME")
@common
def rollback(context: Context, name: str) -> None:
    """Undo the last move of the champion; once more, the one before it.

    \b
    Examples:
      gan models rollback gan-digits
      gan models rollback gan-digits --json
    """
    from pipelines.registry.champion_history import ChampionHistory

    move = ChampionHistory(open_registry(context), name).rollback()
    context.emit_result(
        {"name": name, **move.to_json(), "version": move.version}, f"{name}/{move.version} is champion: {move.reason}"
    )


@click.command("archive")
@click.argument("reference", metavar="REF")
@common
def archive(context: Context, reference: str) -> None:
    """Put a version away: it can still be loaded, and never becomes champion.

    \b
    Example:
      gan models archive gan-digits/2
    """
    from pipelines.registry import retention

    with registry_to_delete_from(context) as registry:
        version = registry.resolve(reference)
        retention.archive(registry, version)
    context.emit_result({"name": version.name, "version": version.version, "archived": True}, f"archived {version}")


@click.command("delete")
@click.argument("reference", metavar="REF")
@click.option("--yes", is_flag=True, help="Do it.")
@common
def delete(context: Context, reference: str, yes: bool) -> None:
    """Delete a version that no alias is on, and its files.

    \b
    Example:
      gan models delete gan-digits/2 --yes
    """
    from pipelines.registry import retention

    with registry_to_delete_from(context) as registry:
        version = registry.resolve(reference)
        retention.check_free(registry, version)
        if not yes:
            raise ConfigurationError(
                "not deleted", version, "this cannot be undone", "--yes to do it, or gan models archive"
            )
        retention.delete(registry, version)
    context.emit_result({"name": version.name, "version": version.version, "deleted": True}, f"deleted {version}")


@click.command("prune")
@click.argument("name", metavar="NAME")
@click.option(
    "--keep", type=click.IntRange(min=1), default=10, show_default=True, help="How many of the newest to keep."
)
@click.option("--yes", is_flag=True, help="Do it; without, only say what would be deleted.")
@common
def prune(context: Context, name: str, keep: int, yes: bool) -> None:
    """Delete old versions that no alias is on and that the champion's last five moves do not name.

    \b
    Examples:
      gan models prune gan-digits --keep 10
      gan models prune gan-digits --keep 10 --yes --json
    """
    from pipelines.registry import retention

    with registry_to_delete_from(context) as registry:
        versions = (retention.prune if yes else retention.to_prune)(registry, name, keep)
    numbers = [version.version for version in versions]
    named = ", ".join(map(str, versions))
    text = (
        f"{'deleted' if yes else 'would delete'} {named}{'' if yes else '; --yes does it'}"
        if named
        else "nothing to prune"
    )
    context.emit_result({"name": name, "keep": keep, "versions": numbers, "deleted": yes}, text)
