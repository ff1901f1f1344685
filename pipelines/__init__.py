"""The distributed pipeline: tune, train, evaluate, register, report. `from pipelines import run` is `gan run`."""

from typing import Any


def __getattr__(name: str) -> Any:
    """`run`, with what it needs: torch, Ray and MLflow are imported when it is asked for."""
    if name != "run":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from pipelines.flow import run

    return run
