"""A command line that click refuses, as one line that says what to type instead."""

from collections.abc import Sequence

import click


def line(error: click.ClickException, arguments: Sequence[str]) -> str:
    """What is wrong, and the setting that an option may have meant, the option that is missing, or where to look."""
    context = error.ctx if isinstance(error, click.UsageError) else None
    wrong, instead = error.format_message().removesuffix("."), "a command of gan --help"
    takes = {option for parameter in context.command.params for option in parameter.opts} if context else set()
    if isinstance(error, click.NoSuchOption) and "--set" in takes and (near := _settings(error.option_name, arguments)):
        wrong, instead = f"No such option '{error.option_name}'", near
    elif isinstance(error, click.MissingParameter) and isinstance(error.param, click.Option):
        instead = (
            f"{error.param.opts[0]} {error.param.metavar or 'VALUE'}: {(error.param.help or '').removesuffix('.')}"
        )
    elif context and isinstance(error, click.MissingParameter):
        instead = f"{' '.join([context.command_path, *context.command.collect_usage_pieces(context)])}; {context.command_path} --help"
    return f"usage (gan): {wrong}; expected {instead}"


def _settings(option: str, arguments: Sequence[str]) -> str:
    """`--set` with each setting that an option may have meant, and the value that follows it."""
    from pipelines.config.keys import near_names  # which reads every setting

    given = [text.partition("=") for text in arguments]
    index = next((index for index, (name, _, _) in enumerate(given) if name == option), len(given))
    value = given[index][2] if index < len(given) else ""
    value = value or next((text for text in arguments[index + 1 : index + 2] if not text.startswith("--")), "VALUE")
    return " or ".join(f"--set {near}={value}" for near in near_names(option.lstrip("-").replace("-", "_")))
