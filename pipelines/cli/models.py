"""Commands on registered models: list, show."""

import click

from pipelines.cli.context import Context, ListByDefault, common


@click.group(cls=ListByDefault)
def models() -> None:
    """Look registered models up.

    \b
    Examples:
      gan models
      gan models show gan-digits@champion --json
    """


@models.command("list")
@common
def models_list(context: Context) -> None:
    """All versions of all models.

    \b
    Example:
      gan models list --json
    """
    from pipelines.registry import Registry

    registry = Registry(context.tracking_uri())
    versions = [version.to_json() for name in registry.models() for version in registry.versions(name)]
    lines = [
        f"{v['name']}/{v['version']:<4} {','.join(v['aliases']) or '-':<22} {v['metrics'].get('log_likelihood', float('nan')):8.1f} nats  "
        f"coverage {v['metrics'].get('coverage', float('nan')):.2f}  run {v['tags'].get('run', '-')}"
        for v in versions
    ]
    context.answer({"models": versions}, "\n".join(lines) or "no registered models")


@models.command("show")
@click.argument("reference", metavar="REF")
@common
def models_show(context: Context, reference: str) -> None:
    """One version: NAME@ALIAS or NAME/VERSION.

    \b
    Example:
      gan models show gan-digits@champion --json
    """
    from pipelines.registry import Registry

    version = Registry(context.tracking_uri()).resolve(reference).to_json()
    lines = [f"{version['name']}/{version['version']}  {', '.join(version['aliases'])}"]
    lines += [f"  {key:<24} {value}" for key, value in sorted(version["tags"].items()) if key != "metrics"]
    context.answer(version, "\n".join(lines))
