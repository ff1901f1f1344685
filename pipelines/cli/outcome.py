"""What a pipeline command prints: its result for machines, and the human-readable summary."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipelines.cli.context import Context
    from pipelines.flow import Outcome


def emit(context: "Context", outcome: "Outcome") -> None:
    """Print how a call of the pipeline ended.

    Raises:
        Collapsed: If the gate refused the model as collapsed, after the result.
    """
    run, stages, done = outcome.run, outcome.stages, outcome.done_before
    if outcome.state == "skipped":
        same = outcome.unchanged
        context.emit_result(
            {"run": run.name, "skipped": True, "model": same.name, "version": same.version},
            f"{run.name} is skipped: data and settings are those of {same}, the newest version",
        )
    elif outcome.state == "planned":
        _emit_plan(context, outcome)
    elif outcome.state == "running elsewhere":
        context.emit_result(
            {"run": run.name, "state": "running"},
            f"{run.name} is being worked on by another process; nothing to do here",
        )
    else:
        already = " was done already" if len(done) == len(stages) else ""
        context.emit_result(result_of(run, stages), summary_of(run, stages, already), outcome.failure)


def _emit_plan(context: "Context", outcome: "Outcome") -> None:
    """Print what a dry run has found; in quiet no steps are timed, which takes seconds."""
    from pipelines.runs.preview import Preview

    run, missing = outcome.run, [stage for stage in outcome.stages if stage not in outcome.done_before]
    result: dict[str, Any] = {"run": run.name, "stages": list(outcome.stages), "done": list(outcome.done_before)}
    result |= {"storage": run.folder.uri, "tracking_uri": outcome.tracking_uri}
    lines = [f"{run.name}: would do {', '.join(missing) or 'nothing'} in {run.folder.uri}"]
    if outcome.dataset is not None and missing:
        plan = Preview.of(run.configuration, outcome.dataset, missing, timed=not context.quiet)
        result["plan"], lines = plan.to_json(), [*plan.lines(), *lines]
    context.emit_result(result, "\n".join(lines))


def result_of(run: Any, stages: tuple[str, ...]) -> dict[str, Any]:
    """What `--json` prints of a run whose stages are done."""
    records = run.records()
    if stages == ("train",):
        return {
            key: records["train"][key] for key in ("run", "step", "checkpoint", "weights_sha256", "generator_sha256")
        }
    if stages == ("tune",):
        return {"run": run.name, **records["tune"]}
    score, registered = records.get("evaluate", {}), records.get("register", {})
    names = ("log_likelihood", "standard_error", "sigma", "coverage")
    return {
        "run": run.name,
        **{key: registered.get(key) for key in ("model", "version", "alias", "promoted", "reason")},
        **{key: score.get(key) for key in names},
        "weights": score.get("weights"),
        "compared": (score.get("quality") or {}).get("count"),
        "report": records.get("report", {}).get("report"),
    }


def summary_of(run: Any, stages: tuple[str, ...], already: str) -> str:
    """The human-readable summary of the same."""
    result = result_of(run, stages)
    lines = [f"done   {run.name}{already}"]
    if "log_likelihood" in result and result["log_likelihood"] is not None and "sigma" in result:
        lines.append(
            f"       {result['log_likelihood']:.1f} ± {result['standard_error']:.1f} nats (Parzen, test set, {result['weights']} G, "
            f"sigma {result['sigma']:.4f}), coverage {result['coverage']:.2f} (of {result['compared']} images and samples)"
        )
        if result["model"]:
            lines.append(f"       {result['model']}/{result['version']} is {result['alias']}: {result['reason']}")
        lines.append(f"       {result['report']}")
    elif "weights_sha256" in result:
        lines.append(f"       step {result['step']}, weights {result['weights_sha256'][:12]}, {result['checkpoint']}")
    elif "chosen" in result:
        lines.append(f"       chosen: {', '.join(f'{key} {value}' for key, value in result['chosen'].items())}")
    return "\n".join(lines)
