"""The `gan` command."""

import contextlib
import gc
import json
import logging
import os
import signal
import sys
import traceback
from collections.abc import Mapping
from typing import Any, NoReturn

import click

from gan_core.errors import GanError
from pipelines.cli import champion, encoder, evaluate, figures, impute, pipeline, sample, serve, setup, submit, usage
from pipelines.cli.configuration import show_configuration
from pipelines.cli.models import models
from pipelines.cli.runs import runs
from pipelines.runtime import exit_codes, import_path

# Torch, Ray and MLflow are imported by the commands that need them: --help answers at once.


class Ended(Exception):
    """What has ended a command, kept from click: it takes any EOFError for Ctrl-C, any broken pipe for its output's."""

    def __init__(self, error: Exception) -> None:
        super().__init__(str(error))
        self.error = error


class Commands(click.Group):
    """Commands whose errors arrive as they are."""

    def invoke(self, context: click.Context) -> None:
        """Run the command that was asked for."""
        try:
            super().invoke(context)
        except (EOFError, OSError) as error:
            raise Ended(error) from error


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="adversarial-nets-on-ray")
def cli() -> None:
    """Adversarial nets as a pipeline: Ray Tune searches, Ray Train trains, a Parzen window judges, MLflow keeps.

    \b
    Examples:
      gan run configs/digits.yaml
      gan run configs/mnist.yaml --set data.root=/data --name nightly-2026-11-24
      gan sample gan-digits@champion -n 64 --output grid.png
      gan models show gan-digits@champion --json
    \b
    Commands and options complete with Tab after:
      eval "$(_GAN_COMPLETE=bash_source gan)"     (or zsh_source, fish_source)
    """


for command in (champion.promote, champion.rollback, champion.archive, champion.delete, champion.prune):
    models.add_command(command)

for command in (
    pipeline.run,
    pipeline.tune,
    pipeline.train,
    evaluate.evaluate,
    pipeline.register,
    pipeline.report,
    submit.submit,
    sample.sample,
    impute.impute,
    encoder.reconstruct,
    encoder.classify,
    figures.figure,
    figures.table,
    serve.serve,
    setup.init,
    show_configuration,
    setup.doctor,
    models,
    runs,
):
    cli.add_command(command)


def main() -> NoReturn:
    """Run the command; errors are one line on stderr and an exit code that says of what kind."""
    debug = "--debug" in sys.argv[1:]
    logging.getLogger("pipelines").setLevel(logging.DEBUG if debug else logging.NOTSET)
    import_path.leave_out_current_folder()
    ended: list[tuple[int, str]] = []

    def leave(number: int, frame: object) -> NoReturn:
        ended.append(exit_codes.ENDS[signal.Signals(number)])
        sys.exit(ended[-1][0])

    signal.signal(signal.SIGTERM, leave)
    if signal.getsignal(signal.SIGHUP) is signal.SIG_DFL:  # else it is nohup's
        signal.signal(signal.SIGHUP, leave)
    exit_codes.send_lost_signals_again()
    try:
        cli.main(standalone_mode=False)
        code = 0
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        code = 2
    except click.ClickException as error:
        code = _failed(usage.line(error, sys.argv[1:]), 2, debug)
    except (click.Abort, KeyboardInterrupt):
        interrupted, line = exit_codes.ENDS[signal.SIGINT]
        code = _failed(line, interrupted, debug)
    except SystemExit as error:  # Ray turns the one of `leave` into its own
        code = _failed(ended[-1][1], ended[-1][0], debug) if ended else int(error.code or 0)
    except Exception as error:
        cause = error.error if isinstance(error, Ended) else error
        known = exit_codes.failure(cause)
        if known is None:  # nobody reads the rest
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        result = cause.result if isinstance(cause, GanError) else {}
        code = _failed(known[1], known[0], debug, result) if known else 0
    sys.exit(code)


def process() -> NoReturn:
    """The command as a process, whose end stays what it is.

    What is left in a process of a Ray that was interrupted while it started, or that has died, would
    abort it, or end it with 1, or never end it.
    """
    exit_codes.own_process(lambda line, code: _failed(line, code, debug=False))
    try:
        main()
    except SystemExit as end:
        if end.code:
            with contextlib.suppress(OSError):
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(int(end.code))
        gc.freeze()  # else Python looks through all that was imported once more: a second of torch, Ray and MLflow
        raise


def _failed(text: str, code: int, debug: bool, result: Mapping[str, Any] | None = None) -> int:
    """Say why on stderr; with --json, however little of the command line was understood, also as the object on stdout."""
    if debug:
        traceback.print_exc()
    click.echo(f"error: {text}", err=True)
    if "--json" in sys.argv[1:]:
        try:
            click.echo(json.dumps({**(result or {}), "error": text, "exit_code": code}))
        except BrokenPipeError:  # nor is Python to write what is left when it ends
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return code
