"""`gan` as it is installed: the command or, without what it needs, a line that names the extra, and `gan doctor` all the same."""

import argparse
import json
import os
import sys
from typing import Any, NoReturn

from gan_core.errors import ConfigurationError
from pipelines.runtime import installed


def main() -> NoReturn:
    """Run the command."""
    try:
        from pipelines.cli import process as command
    except ModuleNotFoundError as error:
        failure = installed.missing(error)
        if failure is None:
            raise
        sys.exit(_without(failure, sys.argv[1:]))
    command()


def _without(failure: ConfigurationError, arguments: list[str]) -> int:
    """Say what is missing, as `pipelines.cli` says any failure; or look at everything, if that is what was asked."""
    as_json, result = "--json" in arguments, dict[str, Any]()
    if arguments[:1] == ["doctor"]:
        result, failure = _examined(arguments[1:], failure)
    sys.stderr.write(f"error: {failure}\n")
    if as_json:
        sys.stdout.write(json.dumps({**result, "error": str(failure), "exit_code": failure.exit_code}) + "\n")
    return failure.exit_code


def _examined(arguments: list[str], failure: ConfigurationError) -> tuple[dict[str, Any], ConfigurationError]:
    """`gan doctor` with its options, and what it ends with."""
    from pipelines import diagnostics

    parser = argparse.ArgumentParser("gan doctor", description="Say what is installed and what there is.")
    parser.add_argument("--storage", default=os.environ.get("GAN_STORAGE", "gan-storage"))
    parser.add_argument("--tracking-uri")
    for names in (["--start"], ["--json"], ["--debug"], ["-q", "--quiet"]):
        parser.add_argument(*names, action="store_true")
    given, findings = parser.parse_args(arguments), []
    for finding in diagnostics.examine(given.storage, given.tracking_uri, given.start):
        findings.append(finding)
        if not given.json:
            sys.stdout.write(f"{finding}\n")
    result, worse = diagnostics.verdict(findings)
    return result, worse or failure
