"""Pictures have their images where they say."""

import io
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from gan_core.datasets import Dataset, Examples
from gan_core.datasets.preprocessing import normalise_contrast, to_bytes
from gan_core.noise import draw_noise
from gan_core.randomness import stream
from pipelines.evaluation.scores import evaluate_arrays
from pipelines.reporting import figures
from tests.pipelines.conftest import principal_generator

HISTORY = [
    {"step": step, "value": -1.3, "generator_loss": 0.7, "real_accuracy": 0.5, "fake_accuracy": 0.6,
     "discriminator_gradient_norm": 0.1, "generator_gradient_norm": 0.2} for step in (10, 20)
]  # fmt: skip


def opened(content):
    return np.asarray(Image.open(io.BytesIO(content)))


def cells(picture, columns, shape, scale, gap=2, last_apart=False):
    """A grid's images, read back from its picture."""
    height, width, *colours = shape
    small = picture[::scale, ::scale].astype(int)
    rows = (small.shape[0] - gap) // (height + gap)
    found = np.empty((rows, columns, height, width, *colours))
    for row in range(rows):
        for column in range(columns):
            left = gap + column * (width + gap) + (3 * gap if last_apart and column == columns - 1 else 0)
            top = gap + row * (height + gap)
            found[row, column] = small[top : top + height, left : left + width]
    return found


@pytest.mark.parametrize("scale", [1, 3])
@pytest.mark.parametrize("apart", [False, True])
@pytest.mark.parametrize("shape", [(3, 4), (3, 4, 3)], ids=["grey", "colour"])
def test_grid_shows_each_image_in_its_cell(scale, apart, shape):
    """A grid shows each image in its row and column, with white between and in empty cells."""
    images = np.random.default_rng(0).random((5, *shape))
    picture = figures.image_grid(images, 3, scale=scale, mark_last=apart)
    assert picture.dtype == np.uint8
    assert picture.shape == (scale * (2 + 2 * 5), scale * (2 + 3 * 6 + (6 if apart else 0)), *shape[2:])
    shown = cells(picture, 3, shape, scale, last_apart=apart)
    for index, image in enumerate(images):
        assert np.array_equal(shown[index // 3, index % 3], np.rint(image * 255))
    assert (shown[1, 2] == 255).all()  # the sixth place is empty
    assert (picture[: 2 * scale] == 255).all()


def test_pixels_are_rounded_and_clipped():
    assert to_bytes(np.array([-1.0, 0.0, 0.49 / 255, 0.51 / 255, 1.0, 7.0])).tolist() == [0, 0, 0, 1, 255, 255]


@pytest.mark.parametrize("shape", [(7, 9), (7, 9, 3)], ids=["grey", "colour"])
def test_a_png_holds_the_pixels_it_was_made_of(shape):
    picture = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
    assert np.array_equal(opened(figures.png(picture)), picture)


def test_contrast_normalised_images_are_stretched():
    """To be looked at, contrast-normalised images are stretched each to its own range."""
    images = np.random.default_rng(0).standard_normal((4, 3, 5, 3))
    images[3] = 0
    shown = figures.viewable(images, "contrast_normalised")
    for image, original in zip(shown[:3], images, strict=False):
        assert (image.min(), image.max()) == (0, 1)
        exact = (original - original.min()) / (original.max() - original.min())
        np.testing.assert_allclose(image, exact, rtol=1e-12)
    assert not shown[3].any()
    assert figures.viewable(images, "unit") is images


def test_figure_2_last_column_is_the_nearest_neighbour(digits):
    """Figure 2's last column is the training image nearest to the sample beside it."""
    model, training = principal_generator(digits, 8), digits.train.images
    picture = figures.samples_with_neighbours(model, training, seed=4, rows=3, columns=2)
    shown = cells(picture, 3, (8, 8), 7, last_apart=True)
    samples = model.draw(6, 4)
    for row in range(3):
        beside = samples[2 * row + 1].reshape(1, -1)
        nearest = training[((training - beside) ** 2).sum(axis=1).argmin()]
        assert np.array_equal(shown[row, :2], np.rint(np.clip(samples[2 * row : 2 * row + 2], 0, 1) * 255))
        assert np.array_equal(shown[row, 2].ravel(), np.rint(nearest * 255))


@pytest.mark.parametrize("pixels", ["unit", "contrast_normalised"])
def test_figures_2_and_3_are_drawn_in_colour(digits, pixels):
    # An 8 x 8 digit's pixels are here a 4 x 5 image of three colours and four pixels that are left out.
    images = normalise_contrast(digits.train.images[:, :60]) if pixels != "unit" else digits.train.images[:, :60]
    examples = Examples(images, digits.train.labels)
    data = Dataset("colour", (4, 5, 3), *[examples] * 4)
    model = replace(principal_generator(data, 8), pixels=pixels)
    drawn = figures.viewable(model.draw(6, 4), pixels)
    shown = cells(
        figures.samples_with_neighbours(model, images, 4, rows=3, columns=2), 3, (4, 5, 3), 14, last_apart=True
    )
    assert np.array_equal(shown[:, :2].reshape(6, 4, 5, 3), np.rint(np.clip(drawn, 0, 1) * 255))
    beside = model.draw(6, 4).reshape(6, -1)[1::2]
    nearest = [((images - sample) ** 2).sum(axis=1).argmin() for sample in beside]
    training = figures.viewable(images[nearest].reshape(3, 4, 5, 3), pixels)
    assert np.array_equal(shown[:, 2], np.rint(training * 255))
    assert figures.interpolation(model, 4, rows=2, columns=3).shape == (14 * 14, 14 * 23, 3)


def test_figure_3_interpolates_z_in_equal_steps(digits):
    """Figure 3 goes from one sample to another in equal steps of z."""
    model = principal_generator(digits, 8)
    shown = cells(figures.interpolation(model, seed=4, rows=2, columns=5), 5, (8, 8), 7)
    ends = draw_noise(stream(4, "interpolation"), 4, model.noise).numpy().reshape(2, 2, 16)
    (mean,) = {tuple(model.generator.biases[1].tolist())}
    directions = model.generator.weights[1].detach().numpy()
    for row, (start, end) in enumerate(ends):
        for column in range(5):
            exact = np.array(mean) + (start + (end - start) * column / 4) @ directions
            # Rounding to 8 bits is half a grey level, and float32 may tip it over.
            assert np.abs(shown[row, column].ravel() - np.clip(exact, 0, 1) * 255).max() <= 0.501


def test_pictures_are_a_function_of_the_seed(digits):
    model = principal_generator(digits, 8)
    for draw in (figures.interpolation, lambda m, seed: figures.samples_with_neighbours(m, digits.train.images, seed)):
        assert np.array_equal(draw(model, 1), draw(model, 1))
        assert not np.array_equal(draw(model, 1), draw(model, 2))


def test_curves_are_a_picture_even_of_a_single_row():
    for history in (HISTORY, HISTORY[:1]):
        assert opened(figures.curves(history)).ndim == 3


@pytest.mark.parametrize(
    ("metric", "legend", "unit"),
    [("value", "V(D, G), generator loss, -log 4, the equilibrium", "nats"),
     ("discriminator_loss", "discriminator loss, generator loss", "loss")],
)  # fmt: skip
def test_curves_without_a_value_show_d_s_loss(monkeypatch, metric, legend, unit):
    """V and its equilibrium are those of Eq. 1: an objective that has none is not shown beside them."""
    monkeypatch.setattr(figures, "_saved", lambda figure: figure)
    history = [{name: row[name] for name in row if name != "value"} | {metric: -1.3} for row in HISTORY]
    axis, *_ = figures.curves(history).axes
    assert ", ".join(text.get_text() for text in axis.get_legend().get_texts()) == legend
    assert axis.get_ylabel() == unit


@pytest.mark.parametrize(
    "values",
    [[0.1, 0.001, 0.3], [1, 2, 3], ["adam", "momentum", "adam"], [None, 1.5, 2.0], [True, False, True], [[32], [64, 64], [32]]],
    ids=["rates", "counts", "names", "none", "flags", "lists"],
)  # fmt: skip
def test_search_plot_takes_any_kind_of_setting(values):
    """A search is drawn whatever kind of setting it searched, with a diverged candidate in it."""
    rows = [
        {"status": "finite", "step": 10 * i, "log_likelihood": -7.0 + i, "key": value, "stage": "search", "candidate": i, "seed": 0}
        for i, value in enumerate(values)
    ]  # fmt: skip
    rows.append({"status": "diverged", "step": 10, "log_likelihood": -1e30, "key": values[0]})
    assert opened(figures.search_plot(rows, ["key"])).ndim == 3


def test_the_choice_of_sigma_is_drawn_along_both_grids(digits):
    scores = evaluate_arrays(digits.train.images[:100], digits.test.images, digits.validation.images, None, 3)
    paper, refined = scores["paper"], scores["cross_validated"]
    assert paper["sigma"] == paper["grid"][int(np.argmax(paper["curve"]))]
    assert len(refined["curve"]) == len(refined["grid"])
    assert opened(figures.sigma_curves([paper, refined])).ndim == 3
