"""A PostgreSQL server of our own in a folder: made once, listening on this machine only, a password for everything."""

import contextlib
import os
import pwd
import shutil
import subprocess
import tempfile
import urllib.parse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gan_core.errors import CheckpointError, ConfigurationError, RegistryError, first_line

OWNER = "gan"  # the database's superuser
HOST = "127.0.0.1"
USUAL = "/usr/lib/postgresql/*/bin"  # where Debian keeps the server's programs, which are not on PATH
UNPRIVILEGED = ("postgres", "nobody")  # who runs it when root starts it: PostgreSQL refuses root


@dataclass(frozen=True)
class Database:
    """A PostgreSQL server in `folder`, on `port`; `password` is its owner's."""

    folder: Path
    port: int
    password: str

    @property
    def data(self) -> Path:
        """What PostgreSQL calls the data directory."""
        return self.folder / "data"

    def uri(self, database: str, with_password: bool = False) -> str:
        """An SQLAlchemy URI of one of its databases; without the password, libpq reads that from PGPASSFILE."""
        password = f":{urllib.parse.quote(self.password, safe='')}" if with_password else ""
        return f"postgresql+psycopg://{OWNER}{password}@{HOST}:{self.port}/{database}"

    def passfile(self) -> str:
        """A line for PGPASSFILE."""
        escaped = self.password.replace("\\", "\\\\").replace(":", "\\:")
        return f"{HOST}:{self.port}:*:{OWNER}:{escaped}\n"

    def start(self) -> None:
        """Make the server if it is not there, and start it if it does not run.

        Raises:
            ConfigurationError: If PostgreSQL is not installed.
            CheckpointError: If its folder cannot be reached by the user it runs as.
            RegistryError: If it does not start; the last line of its log is given.
        """
        _program("postgres")
        self._own_folder()
        if not (self.data / "PG_VERSION").exists():
            self._initialise()
        settings = (
            f"port = {self.port}\nlisten_addresses = '{HOST}'\nunix_socket_directories = ''\n"
            "password_encryption = 'scram-sha-256'\nlog_statement = 'none'\n"
        )
        (self.data / "gan.conf").write_text(settings)
        os.chmod(self.data / "gan.conf", 0o644)
        if not self.running():
            self._run("pg_ctl", "start", "--wait", "--silent", "-D", self.data, "-l", self.folder / "log")

    def stop(self) -> bool:
        """Stop it, once its transactions are ended; whether it was running."""
        running = self.running()
        if running:
            self._run("pg_ctl", "stop", "--wait", "--silent", "--mode", "fast", "-D", self.data)
        return running

    def running(self) -> bool:
        """Whether it runs."""
        if not (self.data / "PG_VERSION").exists():
            return False
        done = subprocess.run([_program("pg_ctl"), "status", "-D", self.data], capture_output=True, **_account())
        return done.returncode == 0

    def create(self, *names: str) -> None:
        """Create databases, those of them that are not there."""
        import psycopg
        from psycopg import sql

        try:
            with psycopg.connect(
                host=HOST, port=self.port, user=OWNER, password=self.password, dbname="postgres", autocommit=True
            ) as connection:
                there = {name for (name,) in connection.execute("select datname from pg_database")}
                for name in names:
                    if name not in there:
                        connection.execute(sql.SQL("create database {}").format(sql.Identifier(name)))
        except psycopg.Error as error:
            said = first_line(error)
            raise RegistryError(
                "PostgreSQL refused", f"{HOST}:{self.port}", said, "the password it was made with"
            ) from None

    def _initialise(self) -> None:
        user = _unprivileged()
        with tempfile.NamedTemporaryFile("w", dir=self.folder) as file:  # 0600; deleted as soon as it was read
            file.write(self.password)
            file.flush()
            if user:
                os.chown(file.name, user.pw_uid, user.pw_gid)
            self._run(
                "initdb", "-D", self.data, "-U", OWNER, "--auth=scram-sha-256", f"--pwfile={file.name}",
                "--encoding=UTF8", "--locale=C",
            )  # fmt: skip
        with (self.data / "postgresql.conf").open("a") as configuration:
            configuration.write("include 'gan.conf'\n")

    def _own_folder(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        os.chmod(self.folder, 0o700)
        if user := _unprivileged():
            os.chown(self.folder, user.pw_uid, user.pw_gid)
            if subprocess.run(["test", "-x", str(self.folder)], **_account()).returncode:
                raise CheckpointError(
                    "folder out of reach", self.folder, f"{user.pw_name} cannot enter a folder above it",
                    "a folder that others may pass through: PostgreSQL does not run as root",
                )  # fmt: skip

    def _run(self, program: str, *arguments: Any) -> None:
        # Its server must not keep our pipes open: output goes to a file.
        with tempfile.TemporaryFile("w+") as output:
            done = subprocess.run(
                [_program(program), *map(str, arguments)], stdin=subprocess.DEVNULL, stdout=output, stderr=output,
                **_account(),
            )  # fmt: skip
            output.seek(0)
            said = [line for line in output.read().splitlines() if line.strip()]
        if done.returncode:
            log = self.folder / "log"
            said += log.read_text().splitlines()[-1:] if log.exists() else []
            raise RegistryError("PostgreSQL failed", program, (said or ["no message"])[-1], f"see {log}")


def installed() -> bool:
    """Whether this machine has the PostgreSQL server's programs."""
    return all(_found(program) for program in ("postgres", "initdb", "pg_ctl"))


def _program(name: str) -> str:
    found = _found(name)
    if found is None:
        raise ConfigurationError("no PostgreSQL", name, f"neither on PATH nor in {USUAL}", "PostgreSQL 14 or newer")
    return found


def _found(name: str) -> str | None:
    folders = sorted(Path("/").glob(USUAL[1:]))
    return shutil.which(name) or next(
        (str(folder / name) for folder in folders[::-1] if (folder / name).exists()), None
    )


def _unprivileged() -> pwd.struct_passwd | None:
    """For root: the user that PostgreSQL is to run as."""
    if os.getuid() != 0:
        return None
    for name in UNPRIVILEGED:
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name)
    raise ConfigurationError(
        "no user for PostgreSQL", "root", f"neither of {', '.join(UNPRIVILEGED)}", "another user than root"
    )


def _account() -> dict[str, Any]:
    """Where and as whom to run its programs, as subprocess takes it."""
    user = _unprivileged()
    return {"cwd": "/"} | ({"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []} if user else {})
