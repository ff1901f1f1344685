"""The launcher's files: valid for this Ray, with nothing installed at start and nothing in the open."""

import re

import jsonschema
import pytest
import yaml

from tests.cluster.commands import parse
from tests.cluster.documents import CLUSTER
from tests.cluster.test_image import PROJECT

FILES = ("aws", "on_premise")


def loaded(name: str) -> dict:
    return yaml.safe_load((CLUSTER / f"ray_up/{name}.yaml").read_text())


def prepared(settings: dict) -> dict:
    """What the launcher makes of a file, checked by Ray's own schema (a private interface: used here only)."""
    from ray.autoscaler._private.util import prepare_config, validate_config

    whole = prepare_config(settings)
    validate_config(whole)
    return whole


def commands(settings: dict) -> list[str]:
    return [line for key, lines in settings.items() if key.endswith("_commands") for line in lines]


@pytest.mark.parametrize("name", FILES)
def test_cluster_file_is_valid_and_its_commands_parse(name):
    """The file for `ray up` is valid, and its `ray start` commands have only options that Ray knows."""
    lines = commands(prepared(loaded(name)))
    assert sum(line.startswith("ray start ") for line in lines) == 2
    for line in lines:
        parse(line)


@pytest.mark.parametrize("name", FILES)
def test_nothing_is_installed_when_a_node_starts(name):
    assert all(re.match(r"ray (start|stop)\b", line) for line in commands(prepared(loaded(name))))


@pytest.mark.parametrize(
    ("wrong", "named"),
    [({"max_worker": 2}, "max_worker"), ({"docker": {"imge": "gan"}}, "imge"), ({"auth": {"user": "gan"}}, "user")],
)
def test_a_wrong_setting_is_refused_by_name(wrong, named):
    with pytest.raises(jsonschema.ValidationError, match=named):
        prepared({**loaded("aws"), **wrong})


@pytest.mark.parametrize("name", FILES)
def test_images_tokens_and_ports_are_as_on_kubernetes(name):
    settings = loaded(name)
    images = re.findall(r"image: (\S+)", (CLUSTER / f"ray_up/{name}.yaml").read_text())
    assert images
    assert {image.rpartition(":")[2] for image in images} == {PROJECT["version"]}
    assert {image.rpartition("/")[2].partition(":")[0] for image in images} <= {"gan-cpu", "gan-gpu"}
    options = settings["docker"]["run_options"]
    assert "--env RAY_AUTH_MODE=token" in options
    [path] = [option.partition("TOKEN_PATH=")[2] for option in options if "TOKEN_PATH=" in option]
    assert path in settings["file_mounts"]
    [head] = settings["head_start_ray_commands"][-1:]
    assert "--dashboard-host=127.0.0.1" in head
    assert not re.search(r"--publish|-p \d|--network[= ]bridge|0\.0\.0\.0", str(settings))


def test_on_aws_nothing_is_public():
    settings = loaded("aws")
    assert settings["provider"]["use_internal_ips"]
    for kind in settings["available_node_types"].values():
        node = kind["node_config"]
        # Without a group of yours, Ray makes one that lets SSH in from everywhere.
        assert node["SecurityGroupIds"]
        assert node["SubnetIds"]
        assert node["MetadataOptions"]["HttpTokens"] == "required"
    assert "security_group" not in settings["provider"]


def test_on_aws_workers_come_as_they_are_asked_for():
    types = dict(loaded("aws")["available_node_types"])
    types.pop("head")
    assert {kind["min_workers"] for kind in types.values()} == {0}
    assert sum(kind["max_workers"] for kind in types.values()) == loaded("aws")["max_workers"]
    assert types["gpu"]["resources"]["GPU"] == 1
