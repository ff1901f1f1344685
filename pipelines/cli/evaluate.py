"""The command that scores a model, or any two arrays: evaluate."""

from typing import Any

import click

from gan_core.errors import ConfigurationError
from pipelines.cli.context import (
    Context,
    common,
    load_dataset,
    load_model,
    origin_run,
)


@click.command()
@click.argument("references", metavar="[REF]...", nargs=-1)
@click.option("--samples", "samples_file", metavar="S.npy", help="Score these samples instead of a model's.")
@click.option("--points", "points_file", metavar="T.npy", help="The points to score, with --samples.")
@click.option("--validation", "validation_file", metavar="V.npy", help="Points to choose sigma from, with --samples.")
@click.option("--sigma", type=float, help="Score at this sigma, beside the protocols' own.")
@click.option(
    "--folds", type=click.IntRange(min=2), help="Folds of the cross-validation  [default: the run's; 5 for arrays]."
)
@click.option(
    "--features", is_flag=True, help="Also on the features of a classifier of the data set's labels, trained now."
)
@click.option(
    "--inception", "inception_file", metavar="WEIGHTS.pth",
    help="Also Inception's FID, KID and score, by torch-fidelity on the weights in this file.",
)  # fmt: skip
@common
def evaluate(
    context: Context,
    references: tuple[str, ...],
    samples_file: str | None,
    points_file: str | None,
    validation_file: str | None,
    sigma: float | None,
    folds: int | None,
    features: bool,
    inception_file: str | None,
) -> None:
    """Score a run, a registered model (NAME@ALIAS, NAME/VERSION), or any two arrays of images.

    Several REFs are scored one by one, each on its own data with its own sigma, and then together: the
    mean of their scores, and its standard error over them. So the five folds of TFD become one number.

    \b
    Examples:
      gan evaluate digits-1a2b3c4d
      gan evaluate gan-digits@champion --json
      gan evaluate gan-digits@champion --features
      gan evaluate gan-mnist@champion --inception weights-inception-2015-12-05-6726825d.pth --json
      gan evaluate tfd-0 tfd-1 tfd-2 tfd-3 tfd-4 --json
      gan evaluate --samples S.npy --points T.npy --sigma 0.1777 --json
    """
    from pipelines.evaluation import scores

    if bool(references) == (samples_file is not None) or (samples_file is None) != (points_file is None):
        raise click.UsageError("give either REF, or --samples and --points")
    if not references and (features or inception_file):
        asked, has = ("--features", "the labels") if features else ("--inception", "the shape of its images")
        raise click.UsageError(f"{asked} needs a REF, whose data set has {has}")
    if len(set(references)) < len(references):
        raise ConfigurationError("a model given twice", "REF", " ".join(references), "each once")
    if samples_file is not None and points_file is not None:
        samples, points = scores.load_array(samples_file, "--samples"), scores.load_array(points_file, "--points")
        validation = scores.load_array(validation_file, "--validation") if validation_file else None
        result = scores.evaluate_arrays(samples, points, validation, sigma, folds or scores.ARRAYS.folds)
    else:
        inception, scored = _inception(inception_file), []
        for reference in references:
            scores_of_it = _evaluate_reference(context, reference, sigma, folds, features, inception)
            scored.append({"reference": reference, **scores_of_it})
            if len(references) > 1:
                context.show(f"{reference}\n{_lines(scored[-1])}")
        if len(references) > 1:
            _answer_together(context, scored)
            return
        result = {key: value for key, value in scored[0].items() if key != "reference"}
    context.emit_result(result, _lines(result))


def _lines(result: dict[str, Any]) -> str:
    """A model's scores for people, a protocol a line, and its quality."""
    from gan_core.extensions.measures import described_measures
    from pipelines.evaluation.scores import described

    lines = [
        f"{score['protocol']:<16} {score['log_likelihood']:9.2f} ± {score['standard_error']:.2f} nats at sigma {score['sigma']:.4f}, "
        f"{score['samples']} samples, {score['points']} points"
        for score in ([result["fixed"]] if "fixed" in result else []) + [result["paper"], result["cross_validated"]]
    ]
    lines += [described(**result["quality"])] if result["quality"] else []
    lines += [f"{result['weights']} G"] if "weights" in result else []
    if seen := result.get("features"):
        lines.append(
            f"features         Fréchet distance {seen['frechet_distance']:.2f} (training images {seen['training_images']:.2f}), "
            f"on a classifier right about {seen['classifier_accuracy']:.1%} of test images: not Inception's FID"
        )
        lines.append(f"features         {described(**seen['quality'])}")
    if judged := result.get("inception"):
        own, training = judged["samples"], judged["training_images"]
        whose = "" if judged["published_weights"] else ", which no published FID has"
        lines.append(
            f"inception        FID {own['fid']:.2f} (training images {training['fid']:.2f}), KID {own['kid']:.4f} ({training['kid']:.4f}), "
            f"score {own['inception_score']:.2f} ({training['inception_score']:.2f}); {judged['count']} samples, "
            f"{judged['test_images']} test images, weights {judged['weights_sha256'][:8]}{whose}"
        )
    return "\n".join([*lines, *described_measures(result.get("extension"))])


def _answer_together(context: Context, scored: list[dict[str, Any]]) -> None:
    """The mean score of several models by each protocol, and its standard error over them."""
    from pipelines.evaluation.scores import over_models

    together = over_models(scored)
    text = "\n".join(
        f"{protocol:<16} {together[protocol]['log_likelihood']:9.2f} ± {together[protocol]['standard_error']:.2f} nats, "
        f"mean and standard error over {len(scored)} models"
        for protocol in ("fixed", "paper", "cross_validated")
        if protocol in together
    )
    context.emit_result({**together, "models": scored}, text)


def _inception(path: str | None) -> Any:
    """Inception with the weights of this file, if one is given."""
    if path is None:
        return None
    from pipelines.evaluation.inception import Inception

    return Inception(path)


def _evaluate_reference(
    context: Context, reference: str, sigma: float | None, folds: int | None, features: bool, inception: Any
) -> dict[str, Any]:
    """Score a run or a registered model on the data set it was trained on."""
    from dataclasses import asdict

    from gan_core.extensions.measures import extension_measures
    from pipelines.evaluation import scores

    model, run = load_model(context, reference), origin_run(context, reference)
    if inception and model.pixels != "unit":
        got, expected = "images of equal contrast", "a model of pixels from 0 to 1, which is what Inception reads"
        raise ConfigurationError("not pixels", f"--inception, {reference}", got, expected)
    dataset = load_dataset(context, reference)
    settings = run.configuration.evaluate
    count, neighbours = settings.samples, settings.neighbours
    samples = model.draw(count, run.configuration.seed).reshape(count, -1)
    points, validation, training = dataset.test.images, dataset.validation.images, dataset.train.references
    result = scores.evaluate_arrays(samples, points, validation, sigma, folds or settings.folds, training, neighbours)
    result["weights"] = run.chosen().scored_weights
    measures = extension_measures(model, dataset, count, run.configuration.seed)
    if measures:
        result["extension"] = measures
    if features:
        from gan_core.metrics.classifier import train_classifier
        from gan_core.metrics.feature_quality import feature_quality

        result["features"] = asdict(feature_quality(train_classifier(dataset.train), dataset, samples, neighbours))
    if inception:
        from pipelines.evaluation.inception import inception_quality

        result["inception"] = asdict(inception_quality(inception, dataset, samples, context.log))
    return result
