"""An MLflow server over PostgreSQL in one folder, with accounts and with artifacts behind the server."""

import contextlib
import fcntl
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from cluster.postgresql import Database
from gan_core.errors import ConfigurationError, RegistryError

RUNS, ACCOUNTS = "mlflow", "mlflow_accounts"  # databases
ADMINISTRATOR = "admin"
SHORTEST = 12  # characters of the administrator's password: MLflow's own rule
# A password that was right is taken as right for so long: MLflow's hash costs far more than a request, at every one.
TRUSTED_SECONDS = 60
READY_SECONDS, STOP_SECONDS = 120.0, 15.0


@dataclass(frozen=True)
class Settings:
    """Where the service listens and keeps artifacts; kept in its folder, so that `start FOLDER` is enough later."""

    host: str = "127.0.0.1"
    port: int = 5000
    database_port: int = 5433
    allowed_hosts: tuple[str, ...] = ()  # names by which clients call it, besides this machine's own
    artifacts: str = ""  # a folder or s3://bucket/folder; default: in the service's folder
    workers: int = 2

    def __post_init__(self) -> None:
        for name in ("port", "database_port"):
            if not 0 < getattr(self, name) < 65536:
                raise ConfigurationError("not a port", name, str(getattr(self, name)), "1 to 65535")


class Service:
    """PostgreSQL and an MLflow server in one folder.

    Passwords are in `secrets/`, files that their owner alone may read: made up at the first start
    unless they are there. They are on no command line and in no log; PostgreSQL's reaches MLflow
    as a PGPASSFILE, and the administrator's through its environment.
    """

    def __init__(self, folder: Path, given: dict[str, Any] | None = None) -> None:
        self.folder = folder.expanduser().absolute()
        known = self._read("settings.json") or {}
        if "allowed_hosts" in known:
            known["allowed_hosts"] = tuple(known["allowed_hosts"])
        self.settings = Settings(**{**known, **(given or {})})
        self.process: subprocess.Popen[bytes] | None = None  # the server, if this object started it

    @property
    def address(self) -> str:
        """Where this machine finds the server."""
        host = "127.0.0.1" if self.settings.host in ("0.0.0.0", "::") else self.settings.host
        return f"http://{host}:{self.settings.port}"

    @cached_property
    def database(self) -> Database:
        """The PostgreSQL server."""
        return Database(self.folder / "postgresql", self.settings.database_port, self.secret("database_password"))

    def secret(self, name: str) -> str:
        """A secret from its file, which is made if it is not there."""
        path = self.folder / "secrets" / name
        if not path.exists():
            _write_private(path, secrets.token_urlsafe(32) + "\n")
        return path.read_text().strip()

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """One start or stop at a time."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / ".lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def start_database(self) -> None:
        """Start PostgreSQL with its databases made and their tables as this MLflow needs them."""
        self.database.start()
        _write_private(self.folder / "secrets" / "pgpass", self.database.passfile())
        self.database.create(RUNS, ACCOUNTS)
        self._mlflow("db", "upgrade", self.database.uri(RUNS))
        self._mlflow("server.auth", "db", "upgrade", "--url", self.database.uri(ACCOUNTS))

    def start(self) -> bool:
        """Start what does not run; whether the server was started now.

        Raises:
            GanError: If a part cannot be started; what was started before it is left running.
        """
        with self.locked():
            if self._server() is not None:
                return False
            if _listening(self.settings.host, self.settings.port):
                raise ConfigurationError("port in use", "--port", str(self.settings.port), "a free one: --port 5050")
            if len(self.secret("admin_password")) < SHORTEST:
                raise ConfigurationError(
                    "password too short", self.folder / "secrets" / "admin_password", "MLflow refuses it",
                    f"{SHORTEST} characters or more",
                )  # fmt: skip
            self.start_database()
            _write_private(self.folder / "settings.json", json.dumps(asdict(self.settings), indent=1))
            self._start_server()
            return True

    def stop(self) -> bool:
        """Stop both; whether anything was running."""
        with self.locked():
            process = self._server()
            if process is not None:
                _end_group(process["pid"])
            if self.process is not None:  # a child of ours: take note of its end
                _end_group(self.process.pid)
                self.process.wait(STOP_SECONDS)
                self.process = None
            (self.folder / "server.json").unlink(missing_ok=True)
            return self.database.stop() or process is not None

    def status(self) -> dict[str, Any]:
        """What runs, and whether it answers."""
        there = (self.folder / "settings.json").exists()
        process = self._server()
        return {
            "address": self.address,
            "database": there and self.database.running(),
            "server": process is not None,
            "healthy": process is not None and _healthy(self.address),
        }

    def _start_server(self) -> None:
        settings = self.settings
        names = ["localhost", "127.0.0.1", socket.gethostname(), *settings.allowed_hosts]
        accounts = self.folder / "secrets" / "accounts.ini"
        _write_private(
            accounts,
            f"[mlflow]\ndefault_permission = READ\nadmin_username = {ADMINISTRATOR}\n"
            f"database_uri = {self.database.uri(ACCOUNTS)}\n"
            f"auth_cache_ttl_seconds = {TRUSTED_SECONDS}\n"
            "authorization_function = mlflow.server.auth:authenticate_request_basic_auth\n",
        )
        command = [
            *("server", "--app-name", "basic-auth", "--host", settings.host, "--port", str(settings.port)),
            *("--workers", str(settings.workers)),
            *("--artifacts-destination", settings.artifacts or str(self.folder / "artifacts")),
            *("--allowed-hosts", ",".join(host for name in names for host in (name, f"{name}:{settings.port}"))),
        ]
        more = {
            "MLFLOW_BACKEND_STORE_URI": self.database.uri(RUNS),
            "MLFLOW_AUTH_CONFIG_PATH": str(accounts),
            "MLFLOW_AUTH_ADMIN_PASSWORD": self.secret("admin_password"),
            "MLFLOW_FLASK_SERVER_SECRET_KEY": self.secret("session_key"),
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # eight processes that nothing here needs
        }
        with _private(self.folder / "server.log", "a") as log:
            process = self.process = subprocess.Popen(
                [sys.executable, "-m", "mlflow", *command], cwd=self.folder, env={**self._environment(), **more},
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        _write_private(self.folder / "server.json", json.dumps({"pid": process.pid, "started": _started(process.pid)}))
        end = time.monotonic() + READY_SECONDS
        while not _healthy(self.address):
            if process.poll() is not None or time.monotonic() > end:
                _end_group(process.pid)
                said = (self.folder / "server.log").read_text().splitlines()
                raise RegistryError(
                    "MLflow did not start", self.address, (said or ["no message"])[-1], f"see {self.folder}/server.log"
                )
            time.sleep(0.2)

    def _mlflow(self, module: str, *arguments: str) -> None:
        command = ["mlflow", module] if "." not in module else [f"mlflow.{module}"]
        done = subprocess.run(
            [sys.executable, "-m", *command, *arguments], cwd=self.folder, env=self._environment(), text=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        if done.returncode:
            said = (done.stdout.strip().splitlines() or ["no message"])[-1]
            raise RegistryError(
                "MLflow failed", " ".join(command + list(arguments[:2])), said, "tables it can bring up to date"
            )

    def _environment(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
        return {**kept, "PGPASSFILE": str(self.folder / "secrets" / "pgpass"), "MLFLOW_DISABLE_TELEMETRY": "true"}

    def _server(self) -> dict[str, Any] | None:
        """The server's process, if it is still the one that was started."""
        known = self._read("server.json")
        return known if known and known["started"] and _started(known["pid"]) == known["started"] else None

    def _read(self, name: str) -> Any:
        path = self.folder / name
        return json.loads(path.read_text()) if path.exists() else None


def _private(path: Path, mode: str) -> Any:
    """A file that its owner alone may read, open for writing."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    file = os.fdopen(os.open(path, os.O_CREAT | os.O_WRONLY | (os.O_APPEND if mode == "a" else 0), 0o600), mode)
    os.fchmod(file.fileno(), 0o600)
    return file


def _write_private(path: Path, text: str) -> None:
    staged = path.with_name(f".{path.name}-{secrets.token_hex(4)}")
    with _private(staged, "w") as file:
        file.write(text)
    os.replace(staged, path)


def _started(pid: int) -> str:
    """When a process started, as the system tells it; empty if it has ended."""
    told = subprocess.run(["ps", "-o", "lstart=,stat=", "-p", str(pid)], capture_output=True, text=True).stdout.strip()
    when, _, state = told.rpartition(" ")
    return "" if state.startswith("Z") else when.strip()


def _end_group(pid: int) -> None:
    """SIGTERM to a process and those it started, and SIGKILL to what is left."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGTERM)
        end = time.monotonic() + STOP_SECONDS
        while _started(pid) and time.monotonic() < end:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)
            time.sleep(0.1)
        os.killpg(pid, signal.SIGKILL)


def _listening(host: str, port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1" if host == "0.0.0.0" else host, port)) == 0


def _healthy(address: str) -> bool:
    try:
        with urllib.request.urlopen(f"{address}/health", timeout=5) as reply:
            return bool(reply.status == 200)
    except OSError:
        return False
