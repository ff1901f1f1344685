"""A loss and a network of one's own: one new file, and its line (with its import) in the room's `__init__.py`."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.pipelines.conftest import environment

ROOT = Path(__file__).parents[2]
OBJECTIVE = '''
"""The difference of D's means, as a critic's: no V, no margin."""

from gan_core.objectives.base import Objective

OBJECTIVE = Objective(lambda real, fake: (fake - real).mean(dim=-1), lambda fake: -fake.mean(dim=-1))
'''
NETWORK = '''
"""Linear nets."""

from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import nn

from gan_core.networks.initial_weights import draw_uniform


@dataclass(frozen=True)
class LinearGeneratorSettings:
    output: Literal["linear"] = "linear"


@dataclass(frozen=True)
class LinearDiscriminatorSettings:
    keep: float = 0.5


@dataclass(frozen=True)
class LinearSettings:
    architecture: Literal["linear"] = "linear"
    generator: LinearGeneratorSettings = field(default_factory=LinearGeneratorSettings)
    discriminator: LinearDiscriminatorSettings = field(default_factory=LinearDiscriminatorSettings)

    def parameter_counts(self, noise_size, condition_size, image_shape):
        return (noise_size + condition_size) * image_shape[0] * image_shape[1], image_shape[0] * image_shape[1]


class Linear(nn.Module):
    def __init__(self, inputs, outputs):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(inputs, outputs))

    def initialize(self, random, pixel_means=None):
        draw_uniform([self.weight], random, 0.1)

    def apply_weight_constraint(self):
        pass


class LinearGenerator(Linear):
    def __init__(self, noise_size, condition_size, image_shape, settings):
        super().__init__(noise_size + condition_size, image_shape[0] * image_shape[1])

    def forward(self, noise, condition):
        return torch.cat([noise, condition], dim=-1) @ self.weight


class LinearDiscriminator(Linear):
    def __init__(self, image_shape, condition_size, settings):
        super().__init__(image_shape[0] * image_shape[1] + condition_size, 1)
        self.dropout = [(self.weight.shape[0], settings.keep)]

    def forward(self, data, condition, masks=()):
        x = torch.cat([data, condition], dim=-1)
        return ((x * masks[0] if masks else x) @ self.weight).squeeze(-1)
'''
TRAINED = """
import json
import sys
from pathlib import Path

sys.path.insert(0, "")  # the copy here, before the package as it is installed

import gan_core
from gan_core.checkpoint import tensors_digest
from gan_core.datasets.digits import load_digits
from gan_core.errors import ConfigurationError
from gan_core.portable import PortableGenerator, load_generator, save_generator
from gan_core.training import initial_state, train
from pipelines import config

assert Path(gan_core.__file__).parent.parent == Path.cwd(), gan_core.__file__
SETTINGS = config.resolve(config.build(json.loads(Path("settings.json").read_text())), "toy").training()
digits = load_digits()
state = initial_state(SETTINGS, digits.train, digits.shape)
(report,) = train(SETTINGS, digits.train, state, 3, lambda step: False)
model = PortableGenerator(state.generator, SETTINGS.noise, SETTINGS.network.generator, digits.shape)
save_generator(Path("model"), model)
refused = {}
for key in ("algorithm.generator_loss", "network.architecture"):
    try:
        section, name = key.split(".")
        config.build({section: {name: "none such"}})
    except ConfigurationError as error:
        refused[key] = str(error)
print(json.dumps({
    "metrics": report.metrics, "refused": refused, "same": load_generator(Path("model")).sha256 == model.sha256,
    "architecture": json.loads(Path("model/config.json").read_text())["architecture"],
}))
"""


def trained_with(tmp_path: Path, room: str, name: str, file: str, lines: dict[str, str], settings: Any) -> Any:
    """What a training says in a copy of the core that has one more file, and lines before others of its `__init__`."""
    shutil.copytree(ROOT / "gan_core", tmp_path / "gan_core")
    (tmp_path / "gan_core" / room / f"{name}.py").write_text(file.lstrip())
    init = tmp_path / "gan_core" / room / "__init__.py"
    text = init.read_text()
    for before, line in lines.items():
        assert text.count(before) == 1
        text = text.replace(before, f"{line}\n{before}")
    init.write_text(text)
    (tmp_path / "settings.json").write_text(json.dumps(settings))
    done = subprocess.run(
        [sys.executable, "-c", TRAINED], cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_new_objective_is_one_file_and_one_line(tmp_path):
    """It trains, has no V, and is among the names that a wrong one is refused with."""
    lines = {
        "from gan_core.objectives.base import": "from gan_core.objectives import critic",
        '    "hinge": hinge.OBJECTIVE,': '    "critic": critic.OBJECTIVE,',
    }
    settings = {"algorithm": {"generator_loss": "critic"}}
    seen = trained_with(tmp_path, "objectives", "critic", OBJECTIVE, lines, settings)
    assert "discriminator_loss" in seen["metrics"]
    assert not {"value", "jensen_shannon_bound"} & set(seen["metrics"])
    expected = "'minimax', 'non_saturating', 'blend', 'critic', 'hinge' or 'least_squares'"
    assert expected in seen["refused"]["algorithm.generator_loss"]


def test_a_new_network_is_one_file_and_one_line(tmp_path):
    """It is configured, trained, saved and read again by its name; nothing else knows of it."""
    nets = '    "linear": Nets(linear.LinearSettings, linear.LinearGenerator, linear.LinearDiscriminator),'
    lines = {"from gan_core.networks.base import": "from gan_core.networks import linear"}
    lines['    "maxout_convolutional": Nets('] = nets
    settings = {"network": {"architecture": "linear", "discriminator": {"keep": 0.9}}}
    seen = trained_with(tmp_path, "networks", "linear", NETWORK, lines, settings)
    assert seen["metrics"]["jensen_shannon_bound"] != 0
    assert (seen["same"], seen["architecture"]) == (True, "linear")
    expected = "'dense', 'linear', 'maxout_convolutional', 'convolutional'"
    assert expected in seen["refused"]["network.architecture"]
