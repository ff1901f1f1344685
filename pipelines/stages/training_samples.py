"""Samples of the same z on a training's way, as pictures in the run's folder: the page's film strip."""

import math
from dataclasses import dataclass

from gan_core.checkpoint import checkpoint_name, checkpoint_step
from gan_core.conditions.base import Conditions
from gan_core.portable import PortableGenerator
from gan_core.state import State
from pipelines.config import ResolvedConfiguration
from pipelines.search.scores import scored_generator
from pipelines.storage import Storage, Tensors, run_layout

COUNT = 16  # samples of a picture: those of `gan sample -n 16` with the run's seed
PARTS = (
    1 / 64,
    1 / 32,
    1 / 16,
    1 / 8,
    1 / 4,
    3 / 8,
    1 / 2,
    5 / 8,
    3 / 4,
    7 / 8,
    1,
)  # of all steps: early ones change most


@dataclass(frozen=True)
class SampleStrip:
    """Draws G's samples of one z at some of the steps that are reported anyway, by the weights that will be scored.

    Draws are a function of the seed, and G is only evaluated: the training's bits are those without it.
    """

    run: Storage
    configuration: ResolvedConfiguration
    image_shape: tuple[int, ...]
    conditions: Conditions

    def due(self, step: int) -> bool:
        """Whether a picture belongs to this step: the first report at or after a part of all steps, and the end."""
        every, last = self.configuration.train.report_every, self.configuration.algorithm.steps
        return step == last or step in {math.ceil(part * last / every) * every for part in PARTS}

    def on_report(self, state: State) -> None:
        """Show a reported state, if its step is one to show."""
        if self.due(int(state.step)):
            self.show(state)

    def show_weights(self, weights: Tensors | None, state: State) -> None:
        """Show what the search has kept of the training's beginning, in a state that takes the weights over."""
        if weights is not None:
            state.load(weights, "a rung of the search")
            self.show(state)

    def show(self, state: State) -> None:
        """Keep a state's samples in the run's folder; again, they are the same."""
        self.run.child(run_layout.SAMPLES).write(f"{checkpoint_name(int(state.step))}.png", self.draw(state))

    def draw(self, state: State) -> bytes:
        """The state's samples as a PNG."""
        from pipelines.reporting import figures

        settings, pixels = self.configuration, self.configuration.data.pixels
        net = scored_generator(state, settings.scored_weights)
        network = settings.network.generator
        model = PortableGenerator(net, settings.noise, network, self.image_shape, pixels, self.conditions)
        return figures.png(figures.sample_grid(model.draw(COUNT, settings.seed), pixels))


def read_strip(run: Storage) -> list[tuple[int, bytes]]:
    """The pictures there are, by step; none of a run of an earlier version."""
    folder = run.child(run_layout.SAMPLES)
    names = [name for name in folder.names() if name.endswith(".png") and not name.startswith(".")]
    return [(checkpoint_step(name.removesuffix(".png")), folder.read(name) or b"") for name in names]
