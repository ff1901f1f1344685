"""A loss, a network and a data set of one's own: the file that the documents show, and its line in the room's `__init__.py`."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.pipelines.conftest import environment
from tests.pipelines.documented import ROOT, blocks

CRITIC = blocks((ROOT / "docs" / "own-loss.md").read_text(), "python")[1]
(LINEAR,) = blocks((ROOT / "docs" / "own-network.md").read_text(), "python")
BARS = blocks((ROOT / "docs" / "own-data-set.md").read_text(), "python")[1]
TRAINED = """
import json
import sys
from pathlib import Path

sys.path.insert(0, "")  # the copy here, before the package as it is installed

import gan_core
from gan_core.checkpoint import tensors_digest
from gan_core.conditions.settings import conditions_of
from gan_core.datasets import load
from gan_core.errors import ConfigurationError
from gan_core.portable import PortableGenerator, load_generator, save_generator
from gan_core.training import initial_state, train
from pipelines import config

assert Path(gan_core.__file__).parent.parent == Path.cwd(), gan_core.__file__
configuration = config.resolve(config.build(json.loads(Path("settings.json").read_text())), "toy")
SETTINGS, data = configuration.training(), load(configuration.data)
conditions = conditions_of(configuration.extension, data)
state = initial_state(SETTINGS, data.train, data.shape, conditions)
(report,) = train(SETTINGS, data.train, state, 3, lambda step: False, conditions=conditions)
model = PortableGenerator(state.generator, SETTINGS.noise, SETTINGS.network.generator, data.shape, conditions=conditions)
save_generator(Path("model"), model)
refused = {}
for key in ("algorithm.generator_loss", "network.architecture", "data.name"):
    try:
        section, name = key.split(".")
        config.build({section: {name: "none such"}})
    except ConfigurationError as error:
        refused[key] = str(error)
print(json.dumps({
    "metrics": report.metrics, "refused": refused, "same": load_generator(Path("model")).sha256 == model.sha256,
    "architecture": json.loads(Path("model/config.json").read_text())["architecture"],
    "data": [data.name, len(data.gate), conditions.size],
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
    seen = trained_with(tmp_path, "objectives", "critic", CRITIC, lines, settings)
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
    seen = trained_with(tmp_path, "networks", "linear", LINEAR, lines, settings)
    assert seen["metrics"]["jensen_shannon_bound"] != 0
    assert (seen["same"], seen["architecture"]) == (True, "linear")
    expected = "'dense', 'linear', 'maxout_convolutional', 'convolutional'"
    assert expected in seen["refused"]["network.architecture"]


def test_a_new_data_set_is_one_file_and_its_name(tmp_path):
    """Its classes condition the nets, its splits are its own, and it is among the names there are."""
    lines = {
        "from gan_core.datasets.cifar10 import": "from gan_core.datasets.bars import load_bars",
        '    "digits": lambda settings: load_digits(),': '    "bars": lambda settings: load_bars(),',
    }
    lines['"digits", "mnist",'] = '"bars",'
    settings = {"data": {"name": "bars"}, "extension": {"name": "conditional"}}
    seen = trained_with(tmp_path, "datasets", "bars", BARS, lines, settings)
    assert seen["data"] == ["bars", 300, 2]
    assert seen["same"]
    assert "'bars', 'digits'" in seen["refused"]["data.name"]
