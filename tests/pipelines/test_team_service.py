"""The service for a team: a real MLflow server with accounts over a real PostgreSQL, started as a team would start it."""

import json
import os
import stat
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from gan_core.errors import CheckpointError
from tests.conftest import free_port
from tests.pipelines import contenders
from tests.pipelines.conftest import ANY_MODEL, environment, failed

NAME = "gan-team"


def local_service(*arguments, cwd):
    return subprocess.run(
        [sys.executable, "-m", "cluster.local_service", *map(str, arguments)],
        cwd=Path(__file__).parents[2], env=environment(), capture_output=True, text=True,
    )  # fmt: skip


@pytest.fixture
def address(team_service, monkeypatch):
    """The server's, with a colleague's environment."""
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "admin")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", team_service.secret("admin_password"))
    return team_service.address


def refused(address, **headers):
    try:
        with urllib.request.urlopen(urllib.request.Request(address, headers=headers), timeout=30) as reply:
            return reply.status
    except urllib.error.HTTPError as error:
        return error.code


@pytest.mark.slow
def test_accounts_can_register_promote_and_roll_back(address, here, tmp_path):
    """Colleagues register, look up, promote and roll back with their accounts."""
    assert contenders.night(address, str(tmp_path), NAME, "first", 2, **ANY_MODEL) == (1, True)
    assert contenders.night(address, str(tmp_path), NAME, "second", 6, **ANY_MODEL) == (2, True)
    assert contenders.night(address, str(tmp_path), NAME, "second", 6, **ANY_MODEL) == (2, True)  # once, however often
    asked = ("--tracking-uri", address, "--json")
    shown = here("models", "show", f"{NAME}@champion", *asked).json
    assert (shown["version"], shown["tags"]["run"]) == (2, "second")
    assert here("models", "rollback", NAME, *asked).code == 0
    assert here("models", "show", f"{NAME}@champion", *asked).json["version"] == 1
    moves = here("models", "history", NAME, *asked).json["moves"]
    assert [(move["from"], move["to"], move["by"]) for move in moves] == [
        (None, 1, "gate"),
        (1, 2, "gate"),
        (2, 1, "rollback"),
    ]
    drawn = here("sample", f"{NAME}@champion", "-n", 4, "--output", "drawn.npy", "--tracking-uri", address)
    assert drawn.code == 0, drawn.err  # the files come through the server


@pytest.mark.slow
def test_wrong_password_shows_nothing_and_is_not_shown(address, here, monkeypatch, small_yaml):
    """Without the right password nothing is told, and nothing of the password is shown."""
    look_up = ("models", "show", f"{NAME}@champion", "--tracking-uri")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "not-the-password")
    failed(here(*look_up, address), 5, "MLflow refused", address)
    started = here("run", small_yaml, "--tracking-uri", address, "--storage", "runs")
    failed(started, 5, "MLflow refused the account", "MLFLOW_TRACKING_PASSWORD")
    assert not Path("runs").exists()  # found before anything began
    monkeypatch.delenv("MLFLOW_TRACKING_USERNAME")
    monkeypatch.delenv("MLFLOW_TRACKING_PASSWORD")
    failed(here(*look_up, address), 5, "MLflow refused", address)
    for answer in (started, here(*look_up, address.replace("://", "://admin:not-the-password@"))):
        assert answer.code == 5
        assert "not-the-password" not in answer.err + answer.out


@pytest.mark.slow
def test_passwords_are_only_in_their_owners_files(address, team_service):
    """Passwords are in files of their owner, on no command line and in no log."""
    kept = [team_service.secret(name) for name in ("admin_password", "database_password", "session_key")]
    assert len({*kept}) == 3
    assert min(map(len, kept)) > 40
    for path in (team_service.folder / "secrets").iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
    assert stat.S_IMODE((team_service.folder / "secrets").stat().st_mode) == 0o700
    told = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    assert str(team_service.folder / "postgresql" / "data") in told  # it is the list that shows the service
    told += (team_service.folder / "server.log").read_text() + (team_service.folder / "postgresql" / "log").read_text()
    assert [secret for secret in kept if secret in told] == []


@pytest.mark.slow
def test_disallowed_host_is_refused_health_is_open(address):
    """A host name that was not allowed is refused, and health needs no account."""
    assert refused(f"{address}/health") == 200
    assert refused(f"{address}/api/2.0/mlflow/experiments/search?max_results=1") == 401
    assert refused(f"{address}/api/2.0/mlflow/experiments/search?max_results=1", Host="elsewhere.example") == 403


@pytest.mark.slow
def test_registry_outlives_a_service_restart(address, team_service, here, tmp_path):
    """Starting again changes nothing, and what was registered outlives a restart."""
    name = f"{NAME}-kept"
    contenders.night(address, str(tmp_path), name, "only", 2, **ANY_MODEL)
    folder = team_service.folder
    again = local_service("start", folder, cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    assert f"was up already at {address}" in again.stdout
    assert f"export MLFLOW_TRACKING_URI={address}" in again.stdout
    assert local_service("stop", folder, cwd=tmp_path).stdout == "stopped\n"
    assert local_service("stop", folder, cwd=tmp_path).stdout == "was not running\n"
    down = local_service("status", folder, cwd=tmp_path)
    assert (down.returncode, json.loads(down.stdout)["database"]) == (5, False)
    failed(here("models", "show", f"{name}@champion", "--tracking-uri", address), 5)
    assert local_service("start", folder, cwd=tmp_path).returncode == 0
    assert json.loads(local_service("status", folder, cwd=tmp_path).stdout) == {
        "address": address, "database": True, "server": True, "healthy": True,
    }  # fmt: skip
    assert here("models", "show", f"{name}@champion", "--tracking-uri", address, "--json").json["version"] == 1


def test_unreachable_postgresql_folder_is_an_error(service, tmp_path):
    """A folder that PostgreSQL cannot enter is an error that says so."""
    if os.getuid() != 0:
        pytest.skip("PostgreSQL runs as another user only where root starts it")
    tmp_path.chmod(0o700)
    shut = type(service)(tmp_path / "service", {"port": free_port(), "database_port": free_port()})
    with pytest.raises(CheckpointError, match="folder out of reach"):
        shut.start()


@pytest.mark.parametrize("arguments", [("status",), ("stop",)])
def test_where_nothing_was_started_there_is_nothing_to_ask(arguments, tmp_path):
    asked = local_service(*arguments, tmp_path / "none", cwd=tmp_path)
    assert (asked.returncode, asked.stdout) == (2, "")
    assert asked.stderr.startswith("error: no service (")
    assert list(tmp_path.iterdir()) == []
