"""Recipes for images of one's own: nets, rates and search by the images' size and colours, as `gan init FOLDER` writes them."""

import math
import re
from collections.abc import Mapping
from typing import Any

import yaml

# Each has the settings of the file in configs/ that it names, where they were tuned; batch and steps are given.
TINY = """\
noise: {{prior: uniform, size: 16}} # of z

# For tiny grey images, as configs/digits.yaml has it.
network:
  generator: {{hidden: [256, 256]}} # widths of G's layers
  discriminator: {{units: [96, 96], pieces: 4, init_range: 0.05}} # maxout

algorithm:
  discriminator_steps: 1 # k, updates of D for one of G
  batch_size: {batch}
  steps: {steps}
  optimizer: adam
  generator_learning_rate: 2.0e-3
  discriminator_learning_rate: 2.0e-3
  generator_average: 0.99 # a moving average of G's weights is scored and registered

train: {{workers: 1, checkpoint_every: 500}} # workers share each batch; any number gives the same weights

tune: # the search, whose first candidate is the settings above; candidates: 0 trains them without
  candidates: 4
  rungs: [600, 900] # steps; after each, the worst leave
  keep: 0.5
  min_coverage: 0.05
  samples: 1000
  confirm: {{best: 1, seeds: 4}}
  space: # any setting of noise, network and algorithm
    algorithm.discriminator_steps: {{choice: [1, 2]}}
    algorithm.generator_learning_rate: {{log_uniform: [1.0e-3, 4.0e-3]}}
    algorithm.discriminator_learning_rate: {{log_uniform: [1.0e-3, 4.0e-3]}}
"""

STROKES = """\
noise: {{prior: uniform, size: 100}} # of z

# For small grey images of strokes, black and white, as configs/mnist.yaml has it: the published nets, less dropout.
network:
  generator: {{hidden: [1200, 1200]}} # widths of G's layers
  discriminator: {{units: [240, 240], pieces: 5, init_range: 0.05, input_keep: 1.0, hidden_keep: 0.8}} # maxout

algorithm:
  discriminator_steps: 1 # k, updates of D for one of G
  batch_size: {batch}
  steps: {steps}
  optimizer: adam
  adam: {{beta1: 0.0}} # with 0.5 D wins in some seeds
  generator_learning_rate: 2.0e-3
  discriminator_learning_rate: 1.0e-3
  learning_rate_decay: 1.0002 # a step
  generator_average: 0.999 # a moving average of G's weights is scored and registered

train: {{workers: 1, threads_per_worker: {threads}, checkpoint_every: 1000}} # workers share each batch

tune: # the search, whose first candidate is the settings above; candidates: 0 trains them without
  candidates: 8
  rungs: [700, 1500, 3000] # steps; after each, the worst leave
  keep: 0.5
  min_coverage: 0.05
  samples: 5000
  confirm: {{best: 1, seeds: 1}}
  space: # any setting of noise, network and algorithm
    algorithm.discriminator_steps: {{choice: [1, 2]}}
    algorithm.generator_learning_rate: {{log_uniform: [1.0e-3, 4.0e-3]}}
    algorithm.discriminator_learning_rate: {{log_uniform: [5.0e-4, 2.0e-3]}}
    noise.size: {{choice: [50, 100]}}
"""

SHADES = """\
noise: {{prior: uniform, size: 100}} # of z

# For small grey images with shades, as configs/fashion_mnist.yaml has it: the published nets.
network:
  generator: {{hidden: [1200, 1200]}} # widths of G's layers
  discriminator: {{units: [240, 240], pieces: 5, init_range: 0.05}} # maxout

algorithm:
  discriminator_steps: 1 # k, updates of D for one of G
  batch_size: {batch}
  steps: {steps}
  optimizer: adam
  generator_learning_rate: 1.0e-3
  discriminator_learning_rate: 1.0e-3
  learning_rate_decay: 1.00004 # a step
  generator_average: 0.999 # a moving average of G's weights is scored and registered

train: {{workers: 1, threads_per_worker: {threads}, checkpoint_every: 1000}} # workers share each batch

tune: # the search, whose first candidate is the settings above; candidates: 0 trains them without
  candidates: 8
  rungs: [700, 1500] # steps; after each, the worst leave
  keep: 0.5
  min_coverage: 0.05
  samples: 5000
  confirm: {{best: 1, seeds: 1}}
  space: # any setting of noise, network and algorithm
    algorithm.discriminator_steps: {{choice: [1, 2]}}
    algorithm.generator_learning_rate: {{log_uniform: [3.0e-4, 3.0e-3]}}
    algorithm.discriminator_learning_rate: {{log_uniform: [3.0e-4, 3.0e-3]}}
    noise.size: {{choice: [50, 100]}}
"""

CONVOLUTIONAL = """\
noise: {{prior: uniform, size: 100}} # of z

# For colour or larger images: the rates of configs/mnist_convolutional.yaml, with maps for this size. They were tuned
# on 28 x 28 grey pixels; on other images look at the first pictures before you let it run for hours.
network:
  architecture: convolutional
  generator: {{hidden: [512], channels: {up}}} # from the smallest maps on; each entry doubles their sides
  discriminator: {{channels: {down}, hidden: [256]}} # without a dense layer D judges patches alone

algorithm:
  discriminator_steps: 1 # k, updates of D for one of G
  batch_size: {batch}
  steps: {steps}
  optimizer: adam
  adam: {{beta1: 0.0}}
  generator_learning_rate: 1.0e-3
  discriminator_learning_rate: 1.0e-3
  learning_rate_decay: 1.0003 # a step
  gradient_penalty: 2.0 # without it D wins, and G stays where it is
  generator_average: 0.999 # a moving average of G's weights is scored and registered

train: {{workers: 1, threads_per_worker: {threads}, checkpoint_every: 1000}} # workers share each batch

tune: # the search, whose first candidate is the settings above; candidates: 0 trains them without
  candidates: 4
  rungs: [700, 1500] # steps; after each, the worst leave
  keep: 0.5
  min_coverage: 0.05
  samples: 1000
  confirm: {{best: 1, seeds: 1}}
  space: # any setting of noise, network and algorithm
    algorithm.generator_learning_rate: {{log_uniform: [3.0e-4, 3.0e-3]}}
    algorithm.discriminator_learning_rate: {{log_uniform: [3.0e-4, 3.0e-3]}}
"""

LEAST_TO_CHOOSE_BY = 50  # images
TINY_SIDE, SMALL_SIDE = 16, 32  # pixels, up to which nets are dense
SMALLEST_MAPS, FIRST_CHANNELS, MOST_CHANNELS = 4, 32, 256


def configuration_text(
    data: Mapping[str, Any], strokes: bool, training_images: int, choosing_images: int, threads: int, model: str
) -> str:
    """A configuration for the images of these `data` settings, as YAML with comments.

    `strokes` says that they are nearly black and white, `threads` are a worker's. No batch is larger than what
    trains, and with too few images to choose by there is no search.
    """
    size = data["size"]
    shape = (*size, 3) if data["channels"] == "colour" else tuple(size)
    settings = _recipe(shape, strokes, training_images, threads)
    if choosing_images < LEAST_TO_CHOOSE_BY:
        why = f"{choosing_images} images to choose by tell candidates apart by luck alone"
        settings = re.sub(r"candidates: \d+\n", f"candidates: 0 # {why}\n", settings)
    first = yaml.safe_dump(dict(data), sort_keys=False, allow_unicode=True, width=10**6, default_flow_style=True)
    return f"seed: 0\ndata: {first}\n{settings}\nregistry: {{model: {model}}} # the best version is {model}@champion\n"


def _recipe(shape: tuple[int, ...], strokes: bool, training_images: int, threads: int) -> str:
    """The settings of noise, network, algorithm, train and tune for images of this shape."""
    side, colour = max(shape[:2]), len(shape) > 2
    if colour or side > SMALL_SIDE:
        up = channels(shape)
        return CONVOLUTIONAL.format(batch=min(50, training_images), steps=6_000, threads=threads, up=up, down=up[::-1])
    if side <= TINY_SIDE:
        text, steps = TINY, 1600
    else:
        text, steps = (STROKES, 18_000) if strokes else (SHADES, 24_000)
    return text.format(batch=min(100, training_images), steps=steps, threads=threads)


def channels(shape: tuple[int, ...]) -> list[int]:
    """Channels of G's maps: as many doublings as lead from maps of four pixels or more a side to the image."""
    doublings = max(1, int(math.log2(max(1, min(shape[:2]) / SMALLEST_MAPS))))
    return [min(FIRST_CHANNELS * 2**level, MOST_CHANNELS) for level in range(doublings - 1, -1, -1)]
