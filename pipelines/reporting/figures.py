"""Pictures: the one-dimensional game (Fig. 1), samples with neighbours (Fig. 2), interpolation (Fig. 3), curves, the search."""

import io
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from gan_core.conditions.classes import asked_classes
from gan_core.datasets import PixelRange
from gan_core.datasets.preprocessing import to_bytes
from gan_core.metrics.sample_quality import nearest_neighbours
from gan_core.noise import draw_noise
from gan_core.one_dimension import Panel
from gan_core.portable import PortableGenerator
from gan_core.randomness import stream

X_LINE, Z_LINE = -0.1, -0.6  # heights of Fig. 1's lines, below its densities
LINES = 4  # of an interpolation
MISSING = 0.5  # the grey of a pixel that is not observed


def image_grid(images: np.ndarray, columns: int, scale: int = 2, gap: int = 2, mark_last: bool = False) -> np.ndarray:
    """Images (count, height, width[, 3]) as one 8-bit picture; `mark_last` sets the last column apart."""
    count, height, width, *colours = images.shape
    rows = -(-count // columns)
    extra = 3 * gap if mark_last else 0
    canvas = np.full((rows * (height + gap) + gap, columns * (width + gap) + gap + extra, *colours), 255, np.uint8)
    for index, image in enumerate(to_bytes(images)):
        row, column = divmod(index, columns)
        top = gap + row * (height + gap)
        left = gap + column * (width + gap) + (extra if column == columns - 1 else 0)
        canvas[top : top + height, left : left + width] = image
    return canvas.repeat(scale, axis=0).repeat(scale, axis=1)


def sample_grid(images: np.ndarray, pixels: PixelRange) -> np.ndarray:
    """Samples as a picture that is about as wide as high."""
    columns = math.ceil(math.sqrt(len(images)))
    return image_grid(viewable(images, pixels), columns, scale=max(1, 56 // images.shape[1]))


def viewable(images: np.ndarray, pixels: PixelRange) -> np.ndarray:
    """Images as pixels in [0, 1]: as they are, or each stretched to its own range if of equal contrast."""
    if pixels == "unit":
        return images
    axes = tuple(range(1, images.ndim))
    low, high = images.min(axis=axes, keepdims=True), images.max(axis=axes, keepdims=True)
    return (images - low) / np.where(high > low, high - low, 1)


def one_dimensional_game(panels: Sequence[Panel]) -> bytes:
    """Fig. 1: p_data dotted in black, p_g solid in green, D dashed in blue; below, arrows from z to x = G(z)."""
    figure, axes = _figure(1, len(panels), width=15)
    for axis, panel in zip(axes, panels, strict=True):
        axis.plot(panel.x, panel.p_data, "k:", label="p_data")
        axis.plot(panel.x, panel.p_g, "g-", linewidth=1, label="p_g")
        axis.plot(panel.x, panel.discriminator, "b--", label="D")
        low, high = panel.x[0], panel.x[-1]
        spread = (high - low) / (panel.noise.max() - panel.noise.min())
        below = (panel.noise - panel.noise.min()) * spread + low  # z's line as long as x's
        for z, x in zip(below, panel.samples, strict=True):
            axis.annotate("", (x, X_LINE), (z, Z_LINE), arrowprops={"arrowstyle": "->", "linewidth": 0.5, "shrinkA": 0, "shrinkB": 0})  # fmt: skip
        for name, height in (("x", X_LINE), ("z", Z_LINE)):
            axis.axhline(height, color="black", linewidth=0.8)
            axis.text(low, height, f" {name} ", ha="right", va="center")
        axis.set_xlim(low, high)
        axis.set_ylim(Z_LINE - 0.05, 1.1)
        axis.set_yticks([0, 0.5, 1])
        axis.set_title(panel.title, fontsize=9)
    axes[0].legend(frameon=False, fontsize=8, loc="upper left")
    return _saved(figure)


def samples_with_neighbours(
    model: PortableGenerator, training_images: np.ndarray, seed: int, rows: int = 8, columns: int = 8
) -> np.ndarray:
    """Fig. 2: uncurated samples; the last column is the nearest training image of the sample beside it."""
    images = model.draw(rows * columns, seed)
    beside = images.reshape(rows, columns, -1)[:, -1]
    nearest = training_images[nearest_neighbours(beside, training_images)].reshape(rows, 1, *model.image_shape)
    grid = np.concatenate([images.reshape(rows, columns, *model.image_shape), nearest], axis=1)
    shown = viewable(grid.reshape(-1, *model.image_shape), model.pixels)
    return image_grid(shown, columns + 1, scale=_scale(model.image_shape), mark_last=True)


def pairs(images: np.ndarray, others: np.ndarray, pixels: PixelRange, columns: int = 5) -> np.ndarray:
    """Images and beside each another, such as its reconstruction; `columns` pairs a row."""
    cells = viewable(np.concatenate([images, others]), pixels)
    both = np.concatenate([cells[: len(images)], cells[len(images) :]], axis=2)  # side by side
    return image_grid(both, min(columns, len(images)), scale=_scale(images.shape[1:]))


def interpolation(
    model: PortableGenerator, seed: int, rows: int = LINES, columns: int = 12, condition: torch.Tensor | None = None
) -> np.ndarray:
    """Fig. 3: images along straight lines in z, one line a row, under a condition for each row."""
    ends = draw_noise(stream(seed, "interpolation"), 2 * rows, model.noise).view(rows, 2, 1, -1)
    weights = torch.linspace(0, 1, columns)[None, :, None]
    lines = torch.lerp(ends[:, 0], ends[:, 1], weights)
    if condition is None:
        condition = model.conditions.sample_prior(rows, stream(seed, "interpolation's conditions"))
    given = condition.repeat_interleave(columns, dim=0)  # a line has one
    images = viewable(model.images(lines.reshape(rows * columns, -1), given), model.pixels)
    return image_grid(images, columns, scale=_scale(model.image_shape))


def class_grid(model: PortableGenerator, seed: int, columns: int = 10) -> np.ndarray:
    """A conditional model's classes, one a row; the samples of a column have the same z.

    Raises:
        ConfigurationError: If the model has no classes.
    """
    classes = asked_classes(model.conditions)
    noise = draw_noise(stream(seed, "samples"), columns, model.noise)
    given = classes.one_hot(np.repeat(np.arange(classes.size), columns))
    images = viewable(model.images(noise.repeat(classes.size, 1), given), model.pixels)
    return image_grid(images, columns, scale=_scale(model.image_shape))


def completion_grid(images: np.ndarray, masks: np.ndarray, completions: np.ndarray, pixels: PixelRange) -> np.ndarray:
    """A row for each image (count, *shape): it, what is observed of it (the rest grey), its completions.

    `masks` are 1 at observed pixels; `completions` are (count, completions, *shape).
    """
    shown = np.concatenate([images[:, None], images[:, None], completions], axis=1)
    visible = viewable(shown.reshape(-1, *images.shape[1:]), pixels).reshape(shown.shape).copy()
    visible[:, 1] = np.where(masks > 0, visible[:, 1], MISSING)
    return image_grid(visible.reshape(-1, *images.shape[1:]), shown.shape[1], scale=_scale(images.shape[1:]))


def png(picture: np.ndarray) -> bytes:
    """A picture as PNG: grey (height, width) or colour (height, width, 3)."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "png")
    return buffer.getvalue()


def curves(history: Sequence[Mapping[str, Any]]) -> bytes:
    """The training's curves: V(D, G) with Theorem 1's -log 4, G's loss, D's accuracies, gradients, variety.

    Of an objective that has no V: D's loss in its place, which has no equilibrium to be near to.
    """
    figure, axes = _figure(1, 4, width=15)
    steps = [row["step"] for row in history]
    losses, accuracy, norms, variety = axes
    has_value = all("value" in row for row in history)
    name, label = ("value", "V(D, G)") if has_value else ("discriminator_loss", "discriminator loss")
    losses.plot(steps, [row[name] for row in history], label=label)
    losses.plot(steps, [row["generator_loss"] for row in history], label="generator loss", alpha=0.7)
    if has_value:
        losses.axhline(-np.log(4), color="grey", linestyle=":", label="-log 4, the equilibrium")
    losses.set_ylabel("nats" if has_value else "loss")
    accuracy.plot(steps, [row["real_accuracy"] for row in history], label="D right on real")
    accuracy.plot(steps, [row["fake_accuracy"] for row in history], label="D right on fake")
    accuracy.axhline(0.5, color="grey", linestyle=":")
    accuracy.set_ylim(0, 1.02)
    norms.semilogy(steps, [row["discriminator_gradient_norm"] for row in history], label="|gradient| of D")
    norms.semilogy(steps, [row["generator_gradient_norm"] for row in history], label="|gradient| of G")
    variety.plot(
        steps, [row.get("sample_variance", np.nan) for row in history], label="variance of samples / of images"
    )
    variety.axhline(1, color="grey", linestyle=":")
    variety.set_ylim(bottom=0)
    for axis in axes:
        axis.set_xlabel("step")
        axis.legend(frameon=False, fontsize=8)
    return _saved(figure)


def sigma_curves(scores: Sequence[Mapping[str, Any]]) -> bytes:
    """How each protocol chose sigma: the log-likelihood of its validation points along its grid, and the folds' own."""
    figure, axis = _figure(1, 1, width=6)
    for score, style in zip(scores, ("o--", "-"), strict=False):
        (line,) = axis.plot(score["grid"], score["curve"], style, markersize=4, label=score["protocol"])
        axis.axvline(score["sigma"], color=line.get_color(), linewidth=0.8)
        for sigma in score["fold_sigmas"]:
            axis.axvline(sigma, ymax=0.04, color=line.get_color())
    best = max((value for score in scores for value in score["curve"]), default=0.0)
    span = abs(best) + 50
    axis.set_ylim(best - 3 * span, best + 0.2 * span)  # below, a narrow window has nothing to say
    axis.set_xscale("log")
    axis.set_xlabel("sigma")
    axis.set_ylabel("validation log-likelihood, nats")
    axis.legend(frameon=False, fontsize=8)
    return _saved(figure)


def search_plot(rows: Sequence[Mapping[str, Any]], keys: Sequence[str]) -> bytes:
    """Each candidate's validation log-likelihood from rung to rung, and against each searched setting."""
    finite = [row for row in rows if row["status"] == "finite"]
    figure, axes = _figure(1, 1 + len(keys), width=3.2 * (1 + len(keys)))
    rungs, *others = np.atleast_1d(axes)
    best = max((row["log_likelihood"] for row in finite), default=0.0)
    for trial in sorted({_trial_of(row) for row in finite}):
        path = sorted((row["step"], row["log_likelihood"]) for row in finite if _trial_of(row) == trial)
        rungs.plot(*zip(*path, strict=True), marker="o", markersize=3, linewidth=0.8)
    rungs.set_xlabel("step")
    points = None
    for axis, key in zip(others, keys, strict=True):
        values: list[Any] = [str(row[key]) if isinstance(row[key], list) else row[key] for row in finite]
        points = axis.scatter(
            values,
            [row["log_likelihood"] for row in finite],
            c=[row["step"] for row in finite],
            s=18,
        )
        if values and isinstance(values[0], float) and min(values) > 0 and max(values) > 5 * min(values):
            axis.set_xscale("log")
        axis.set_xlabel(key, fontsize=8)
        axis.axhline(best, color="grey", linewidth=0.5)
    np.atleast_1d(axes)[0].set_ylabel("validation log-likelihood, nats")
    if points is not None:
        figure.colorbar(points, ax=axes, label="step")
    return _saved(figure)


def _trial_of(row: Mapping[str, Any]) -> tuple[str, int, int]:
    return str(row["stage"]), int(row["candidate"]), int(row["seed"])


def _scale(shape: Sequence[int]) -> int:
    return max(1, 56 // shape[0])


def _figure(rows: int, columns: int, width: float) -> Any:
    from matplotlib.figure import Figure  # no pyplot: no global state, no display

    figure = Figure(figsize=(width, 3.2), layout="constrained")
    return figure, figure.subplots(rows, columns)


def _saved(figure: Any) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return buffer.getvalue()
