"""Say what killed commands have left behind, and remove it."""

from dataclasses import asdict

import click

from pipelines.cli.context import Context, common


@click.command()
@click.option("--yes", is_flag=True, help="Remove it; without it, say what would go.")
@common
def clean(context: Context, yes: bool) -> None:
    """What killed commands have left on this machine and in the storage; never what a process holds.

    Sessions of a Ray that gan had started, temporary folders of theirs and of multiprocessing, files and folders
    that were cut short, runs that never began, and rows of streamed images that no run reads.

    \b
    Examples:
      gan clean
      gan clean --yes
    """
    from pipelines.runs import leftovers
    from pipelines.runs.recorded_run import run_names
    from pipelines.runs.status import bytes_text
    from pipelines.storage import image_cache

    said, freed = [], 0
    for one in leftovers.leftovers(context.storage):
        gone = yes and leftovers.remove(one, context.storage)
        fate = "removed" if gone else "kept: it is in use, or may not be removed" if yes else "would go"
        context.show(f"{one.kind:<16} {bytes_text(one.bytes):>9}  {fate}  {one.path}")
        said.append({**asdict(one), "path": str(one.path), "removed": gone})
        freed += one.bytes if gone or not yes else 0
    of_rows = image_cache.remove_unread if yes else image_cache.unread
    rows = [asdict(row) for row in of_rows(context.storage, run_names(context.storage))]
    for row in rows:
        context.show(
            f"{'images':<16} {bytes_text(row['bytes']):>9}  {'removed' if yes else 'would go'}  rows {row['rows']}"
        )
    freed += sum(row["bytes"] for row in rows)
    context.emit_result(
        {"leftovers": said, "rows": rows, "bytes": freed, "removed": yes},
        f"{bytes_text(freed)} {'freed' if yes else 'would be freed; --yes does it'}"
        if said or rows
        else "nothing is left behind",
    )
