"""The image: locked, without root, and the same Ray everywhere."""

import re
import tomllib

import pytest

from tests.cluster.documents import CLUSTER, REPOSITORY, SETS, containers, of_kind, rendered, templates

DOCKERFILE = (CLUSTER / "Dockerfile").read_text()
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]


def instructions(text: str) -> list[tuple[str, str]]:
    """(instruction, arguments) of a Dockerfile, comments left out and continued lines joined."""
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    return [(line.split()[0].upper(), line.split(maxsplit=1)[1]) for line in joined.splitlines()]


def faults(text: str) -> list[str]:
    """What a reviewer would not let pass."""
    found, steps = [], instructions(text)
    defaults = dict(value.split("=", 1) for name, value in steps if name == "ARG" and "=" in value)
    stages = [value.partition(" AS ")[2] for name, value in steps if name == "FROM"]
    for name, value in steps:
        if name == "FROM":
            source = re.sub(r"\$\{(\w+)\}", lambda match: defaults[match[1]], value.split()[0])
            if source not in stages and (not re.search(r"[:@]", source) or source.endswith(":latest")):
                found.append(f"a base without a version: {source}")
        if name == "ADD" or (name == "RUN" and re.search(r"curl|wget\s+http", value)):
            found.append(f"something downloaded unchecked: {value}")
        for command in re.split(r"&&|;", value) if name == "RUN" else []:
            if re.search(r"pip (install|sync)|uv build", command) and not (
                "--require-hashes" in command or command.split()[-2:] == ["--no-deps", "dist/*.whl"]
            ):
                found.append(f"not by hash: {command.strip()}")
            if "--editable" in command or " -e ." in command:
                found.append(f"editable: {command.strip()}")
    last = max(index for index, (name, _) in enumerate(steps) if name == "FROM")
    users = [value for name, value in steps[last:] if name == "USER"]
    if not users or not re.fullmatch(r"[1-9]\d*:[1-9]\d*", users[-1]):
        found.append("root, or a user without a fixed number")
    return found


def pins(name: str) -> dict[str, str]:
    """Each package of a lock: its version, marker and hashes."""
    text = (REPOSITORY / name).read_text()
    return {entry.split("==")[0]: entry for entry in re.split(r"\n(?=\S)", text.strip())}


def ray_version(lock: str) -> str:
    return re.match(r"ray==(\S+)", pins(lock)["ray"])[1]


def test_the_image_has_no_faults():
    assert faults(DOCKERFILE) == []


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("USER 10001:10001\n", ""),
        ("USER 10001:10001", "USER root"),
        ("USER 10001:10001", "USER 0:0"),
        ("--require-hashes -r bootstrap.lock", "-r bootstrap.lock"),
        ("uv pip sync --require-hashes", "uv pip sync"),
        ("uv pip install --no-deps dist/*.whl", "uv pip install ."),
        ("python:3.11-slim-bookworm", "python:latest"),
        ("python:3.11-slim-bookworm", "python"),
    ],
)
def test_a_fault_in_the_image_is_found(old, new):
    assert old in DOCKERFILE
    assert faults(DOCKERFILE.replace(old, new))


def test_ray_is_the_same_version_everywhere():
    locked = ray_version("requirements.lock")
    assert ray_version("requirements-runtime.lock") == locked
    assert re.findall(r"^ARG RAY_VERSION=(\S+)$", DOCKERFILE, re.MULTILINE) == [locked]
    clusters = [one for name in SETS for one in of_kind(rendered(name), "RayCluster")]
    assert {cluster["spec"]["rayVersion"] for cluster in clusters} == {locked}
    import ray

    assert ray.__version__ == locked


def test_the_runtime_lock_is_the_lock_without_the_tools():
    everything, runtime = pins("requirements.lock"), pins("requirements-runtime.lock")
    assert {name: everything.get(name) for name in runtime} == runtime
    assert {"torch", "ray", "mlflow", "psycopg", "boto3"} <= runtime.keys()
    assert not {"pytest", "mypy", "ruff", "moto", "hatchling"} & runtime.keys()
    assert all("--hash=sha256:" in entry for entry in runtime.values())


def test_the_sites_lock_changes_no_version_of_the_lock():
    """`make docs` installs it beside the other."""
    everything, site = pins("requirements.lock"), pins("requirements-docs.lock")
    both = everything.keys() & site.keys()  # on another system each has its own packages
    assert {name: everything[name].split()[0] for name in both} == {name: site[name].split()[0] for name in both}
    assert "mkdocs-material" in site
    assert all("--hash=sha256:" in entry for entry in site.values())


def test_make_lock_writes_every_lock():
    recipe = (REPOSITORY / "Makefile").read_text().split("\nlock:")[1].split("\n\n")[0]
    written = set(re.findall(r" -o (\S+\.lock)", recipe))
    assert written == {"bootstrap.lock", "requirements.lock", "requirements-runtime.lock", "requirements-docs.lock"}
    assert all((REPOSITORY / name).is_file() for name in written)


def test_what_builds_the_wheel_is_pinned():
    assert "hatchling" in pins("requirements.lock")


def test_both_variants_exist_and_bytecode_is_compiled():
    stages = [value for name, value in instructions(DOCKERFILE) if name == "FROM"]
    assert {"environment-cpu", "environment-gpu"} <= {stage.partition(" AS ")[2] for stage in stages}
    assert "environment-${VARIANT} AS environment" in stages
    assert "UV_COMPILE_BYTECODE=1" in DOCKERFILE


def test_what_is_copied_is_there_and_let_through():
    ignored = (CLUSTER / "Dockerfile.dockerignore").read_text().splitlines()
    allowed = {line[1:] for line in ignored if line.startswith("!")}
    assert "*" in ignored
    copied = set()
    for name, value in instructions(DOCKERFILE):
        if name == "COPY" and not value.startswith("--from="):
            copied |= set(value.split()[:-1])
    assert copied == allowed
    assert all((REPOSITORY / name).exists() for name in copied)


@pytest.mark.parametrize("name", SETS)
def test_images_are_pinned_and_ours_run_as_their_user(name):
    """Every container image has a version, and ours run as the user that the Dockerfile names."""
    user = int(re.findall(r"^USER (\d+):", DOCKERFILE, re.MULTILINE)[-1])
    for document in rendered(name):
        for _, template in templates(document):
            for container in containers(template):
                repository, _, tag = container["image"].rpartition(":")
                assert repository
                assert tag != "latest"
                if "gan-" in repository:
                    assert tag == PROJECT["version"]
                    assert template["spec"]["securityContext"]["runAsUser"] == user
