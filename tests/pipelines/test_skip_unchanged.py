"""`--skip-unchanged`: a night of the same data and settings as the newest version is not run again."""

import pytest

from pipelines import config
from pipelines.data.image_files import load
from pipelines.registry import Registry
from pipelines.runs.run import Run
from pipelines.stages.register import RECIPE_TAG, recipe_digest
from pipelines.storage import Storage

NIGHTLY = ("--set", "seed=name", "--set", "algorithm.steps=60", "--skip-unchanged", "--dry-run", "--json")


@pytest.fixture
def night(here, small_yaml, registry_uri, tmp_path):
    """`gan run --skip-unchanged` as it would be tonight, after a first night that was registered."""
    settings = config.load(small_yaml, ["seed=name", "algorithm.steps=60"])
    first = Run.create(settings, "small", "night-1", Storage.at(tmp_path / "runs"))
    registry = Registry(registry_uri)
    registry.backend.client.create_registered_model("gan-small")
    tags = {"run": "night-1", "data_digest": load(settings.data).digest, RECIPE_TAG: recipe_digest(first)}
    registry.backend.client.create_model_version("gan-small", "file:///nowhere", tags=tags)

    def run(name, *more):
        answer = here(
            "run",
            small_yaml,
            "--name",
            name,
            "--storage",
            tmp_path / "runs",
            "--tracking-uri",
            registry_uri,
            *NIGHTLY,
            *more,
        )
        assert answer.code == 0, answer.err
        return answer.json

    return run, registry


def test_night_of_other_name_and_seed_is_skipped(night, tmp_path):
    """A night that differs in name and seed alone is skipped and leaves no trace."""
    run, _ = night
    assert run("night-2") == {"run": "night-2", "skipped": True, "model": "gan-small", "version": 1}
    assert not (tmp_path / "runs").exists()


def test_changed_or_same_named_night_is_not_skipped(night):
    """A night with another setting, after another model, or of the same name is run."""
    run, registry = night
    assert "skipped" not in run("night-2", "--set", "algorithm.steps=61")
    assert "skipped" not in run("night-1")  # the same run again says that it is done, or resumes
    registry.backend.client.create_model_version("gan-small", "file:///nowhere", tags={"run": "by-hand"})
    assert "skipped" not in run("night-2")
