"""The gate on models whose truth is known: how often it refuses good, collapsed, noise and copying ones, on three kinds of images.

    python -m tests.benchmarks.gate --root FOLDER_OF_MNIST

Each trial splits a data set anew, makes each model of its training images, and asks the gate's own `refusal` at the default
thresholds, but for the number of points that is varied. Rates come with Clopper and Pearson's 95 % interval.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import click
import numpy as np
from scipy.stats import binomtest
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA

from gan_core import datasets
from gan_core.metrics.diagnosis import MOST, Diagnosis, diagnose
from gan_core.threads import one_thread
from pipelines.config import GateSettings
from pipelines.registry.promotion_gate import refusal

SETTINGS = GateSettings()
SAMPLES = 1000  # of a model, and training images; as many as points, of more
SIDE = 16  # of the drawn shapes

Draw = Callable[[int], np.ndarray]  # so many samples


@dataclass(frozen=True)
class World:
    """Images of one kind with their modes: classes of digits, or forms."""

    name: str
    images: np.ndarray
    modes: np.ndarray


@dataclass(frozen=True)
class Split:
    """A trial's images: to make models of, to choose sigma on, to judge by, and fresh ones that only a perfect model draws."""

    points: np.ndarray
    validation: np.ndarray
    training: np.ndarray
    fresh: np.ndarray
    fresh_modes: np.ndarray


def digits() -> World:
    """The 1,797 that ship inside scikit-learn."""
    read = load_digits()
    return World("digits", (read.data / 16).astype(np.float32), read.target)


def mnist(root: str) -> World:
    """All 70,000, if its files are there."""
    parts = datasets.load(datasets.DataSettings(name="mnist", root=root, download=False)).splits().values()
    return World("MNIST", *(np.concatenate([getattr(part, name) for part in parts]) for name in ("images", "labels")))


def shapes(count: int = 25_000) -> World:
    """Discs, boxes, diamonds and triangles of any size, place and two colours."""
    random = np.random.default_rng(0)
    forms, places, radii = (
        random.integers(4, size=count),
        random.uniform(5, 11, (2, count)),
        random.uniform(2.5, 5, count),
    )
    colours = random.random((count, 2, 3)).astype(np.float32)
    y, x = np.mgrid[:SIDE, :SIDE]
    images = np.empty((count, SIDE * SIDE * 3), np.float32)
    for i, (form, radius) in enumerate(zip(forms, radii, strict=True)):
        dx, dy = x - places[0, i], y - places[1, i]
        inside = (
            dx**2 + dy**2 <= radius**2,
            np.maximum(abs(dx), abs(dy)) <= radius,
            abs(dx) + abs(dy) <= radius,
            (dy <= 0.7 * radius) & (abs(dx) <= 0.6 * (dy + radius)),
        )[form]
        images[i] = np.where(inside[..., None], colours[i, 1], colours[i, 0]).reshape(-1)
    return World("shapes", images, forms)


def split(world: World, points: int, random: np.random.Generator) -> Split:
    """So many points, as many to choose sigma on (10 to 1,000), and of the rest half, or SAMPLES and more, to train on."""
    order = random.permutation(len(world.images))
    validation = min(max(10, points), 1000)
    training = min(max(SAMPLES, min(points, MOST)), (len(order) - points - validation) // 2)
    parts = np.split(order, np.cumsum([points, validation, training]))
    return Split(*(world.images[part] for part in parts), world.modes[parts[3]])


def models(seen: Split, random: np.random.Generator) -> Iterator[tuple[str, str, Draw]]:
    """What a model may be: its kind, its name, and how to draw from it."""
    training, width = seen.training, seen.training.shape[1]
    mean, deviation = training.mean(axis=0), training.std(axis=0)

    def of(rows: np.ndarray, noise: float = 0.0) -> Draw:
        def draw(count: int) -> np.ndarray:
            again = count > len(rows)  # as few images as a collapsed model has; else none twice
            drawn = rows[random.choice(len(rows), count, replace=again)]
            return np.clip(drawn + np.float32(noise) * random.standard_normal(drawn.shape, np.float32), 0, 1)

        return draw

    blur = PCA(min(60, len(training) // 4), svd_solver="randomized", random_state=0).fit(training)
    yield "good", "fresh images", of(seen.fresh)
    yield "good", "fresh images, noise of 0.05", of(seen.fresh, 0.05)
    yield "good", "fresh images, blurred", of(blur.inverse_transform(blur.transform(seen.fresh)))
    few = {count: training[random.integers(len(training), size=count)] for count in (1, 5, 20)}
    yield "collapsed", "one image", of(few[1])
    yield "collapsed", "one image, noise of 0.05", of(few[1], 0.05)
    yield "collapsed", "the mean image, noise of 0.05", of(mean[None], 0.05)
    yield "collapsed", "5 images, noise of 0.02", of(few[5], 0.02)
    yield "collapsed", "20 images, noise of 0.02", of(few[20], 0.02)
    half = seen.fresh[np.isin(seen.fresh_modes, np.unique(seen.fresh_modes)[::2])]
    yield "half the modes missing", "fresh images of the other half", lambda count: of(half)(min(count, len(half)))
    yield "noise", "uniform", lambda count: random.random((count, width), np.float32)
    yield (
        "noise",
        "mean and deviation of each pixel",
        lambda count: np.clip(mean + deviation * random.standard_normal((count, width), np.float32), 0, 1),
    )
    yield (
        "noise",
        "pixels of other images each",
        lambda count: np.take_along_axis(training, random.integers(len(training), size=(count, width)), axis=0),
    )
    yield "copying", "training images", of(training)
    yield "copying", "training images, noise of 0.02", of(training, 0.02)


def verdict(seen: Diagnosis) -> str:
    """What the gate says, were the points enough."""
    refused = refusal(seen, replace(SETTINGS, min_points=2))
    return "passes" if refused is None else refused.reason.partition(":")[0]


@click.command()
@click.option("--root", help="The folder of MNIST's files; without it MNIST is left out.")
@click.option("--points", multiple=True, type=int, default=(30, 100, 200, 300, 1000, 10_000), show_default=True)
@click.option(
    "--trials", default=100, show_default=True, help="Splits and models of each; a tenth of them beyond 1,000 points."
)
@click.option("--only", type=click.Choice(["digits", "MNIST", "shapes"]), multiple=True, help="These kinds of images.")
@click.option("--show", is_flag=True, help="Each trial's numbers.")
def main(root: str | None, points: tuple[int, ...], trials: int, only: tuple[str, ...], show: bool) -> None:
    """Print the rates of refusal, by kind of images, number of held-out points and model."""
    kinds: dict[str, Callable[[], World]] = {"digits": digits, "shapes": shapes}
    if root:
        kinds["MNIST"] = lambda: mnist(root)
    everywhere: Counter[tuple[str, str]] = Counter()
    for kind_of_images in only or kinds:
        world = kinds[kind_of_images]()
        for count in points:
            if len(world.images) < count + max(10, min(count, 1000)) + 1000:
                continue
            said: dict[tuple[str, str], Counter[str]] = {}
            for trial in range(trials if count <= 1000 else max(2, trials // 10)):
                random = np.random.default_rng([trial, count])
                seen = split(world, count, random)
                samples = min(len(seen.training), len(seen.fresh))
                for kind, name, draw in models(seen, random):
                    with one_thread():
                        found = diagnose(seen.points, draw(samples), seen.training, seen.validation)
                    said.setdefault((kind, name), Counter())[verdict(found)] += 1
                    if show:
                        click.echo(f"{kind}, {name}: {verdict(found)} {found}")
            for (kind, name), counted in said.items():
                _row(world.name, count, f"{kind}: {name}", counted)
            for kind in dict.fromkeys(kind for kind, _ in said):
                together = sum((counted for key, counted in said.items() if key[0] == kind), Counter())
                _row(world.name, count, f"{kind}: all", together)
                if count >= SETTINGS.min_points:
                    everywhere += Counter({(kind, reason): number for reason, number in together.items()})
    for kind in dict.fromkeys(kind for kind, _ in everywhere):
        counted = Counter({reason: number for (other, reason), number in everywhere.items() if other == kind})
        _row("all", SETTINGS.min_points, f"or more; {kind}", counted)


def _row(world: str, points: int, model: str, counted: Counter[str]) -> None:
    total, passed = counted.total(), counted["passes"]
    interval = binomtest(total - passed, total).proportion_ci()
    why = ", ".join(f"{reason} {number}" for reason, number in counted.most_common())
    click.echo(
        f"{world:<7} {points:>6} points  {model:<75} refused {(total - passed) / total:6.1%} "
        f"[{interval.low:.1%}, {interval.high:.1%}] of {total}  ({why})"
    )


if __name__ == "__main__":
    main()
