"""`gan config` shows every setting of a configuration, and where its value is from."""

import json
import os
from pathlib import Path

import pytest
from click.testing import CliRunner

from pipelines import config
from pipelines.cli import cli

CONFIGS = sorted((Path(__file__).parents[2] / "configs").glob("*.yaml"))


def shown(*arguments: object) -> str:
    result = CliRunner().invoke(cli, ["config", *map(str, arguments)], catch_exceptions=False)
    assert result.exit_code == 0
    return result.stdout


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_what_is_shown_is_the_configuration(path, tmp_path):
    """The YAML that is shown reads back as the configuration, overrides included."""
    overrides = ["seed=9", "noise.size=7"]
    (tmp_path / "shown.yaml").write_text(shown(path, *(part for text in overrides for part in ("--set", text))))
    assert config.load(tmp_path / "shown.yaml") == config.load(path, overrides)


def test_each_value_has_its_source(tmp_path):
    """What the file gave, what --set gave or replaced, and what is a default are told apart; a space is one setting."""
    path = tmp_path / "it.yaml"
    path.write_text(
        "{seed: 3, noise: {size: 5}, tune: {candidates: 2, space: rates, confirm: {seeds: 3}}, train: {workers: 1, max_failures: 2}}"
    )
    settings = json.loads(shown(path, "--set", "noise.size=6", "--set", "train={workers: 2}", "--json"))
    sources = {name: setting["from"] for name, setting in settings.items() if setting["from"] != "default"}
    assert sources.pop("tune.space") == sources.pop("tune.confirm.seeds") == sources.pop("tune.candidates") == "file"
    assert (sources.pop("seed"), sources.pop("noise.size")) == ("file", "set")
    assert sources == {"train.workers": "set"}
    assert settings["noise.size"]["value"] == 6
    assert settings["tune.space"]["value"]["algorithm.generator_learning_rate"] == {"log_uniform": [0.05, 0.2]}


def test_configuration_of_a_pipe_is_read_once():
    """`gan config <(command)` shows what the command wrote: a pipe gives its text one time."""
    reading, writing = os.pipe()
    with os.fdopen(writing, "w") as pipe:
        pipe.write("{seed: 3}")
    settings = json.loads(shown(f"/dev/fd/{reading}", "--json"))
    os.close(reading)
    assert settings["seed"] == {"value": 3, "from": "file"}
