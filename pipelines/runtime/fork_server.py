"""Ray's workers on this machine, forked from one process that has imported what each of them would import again.

Run as a program by Ray, in place of its own that prepares a worker's environment: it asks the server for a fork, or
becomes a worker of its own where the server does not answer. It needs nothing but Python.
"""

import contextlib
import json
import os
import signal
import socket
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

SERVE = "--serve"
FOLDER = "GAN_FORK_SERVER"  # in the environment of what Ray starts: where the server's socket is
SOCKET = "socket"
OOM_SCORE = Path("/proc/self/oom_score_adj")  # Ray lets the kernel end workers before its own parts
HARMLESS = ("jemalloc_bg_thd",)  # Arrow's allocator stops it for a fork, and starts it again
OPTIONS = ("--serialized-runtime-env-context=", "--language=")  # of Ray's own program, not of the worker


@contextlib.contextmanager
def running(modules: Sequence[str], place: str) -> Iterator[None]:
    """Let the Ray that is started in the block fork its workers from a process that has imported these modules.

    The server ends with the block, or with this process, and with it its folder, at a place whose path is short enough
    for a socket.
    """
    import shutil
    import subprocess
    import tempfile

    os.makedirs(place, exist_ok=True)
    folder = tempfile.mkdtemp(prefix="gan-forks-", dir=place)
    # Math libraries read it when they are loaded: a worker's own number of threads is set as it begins its work.
    environment = {"OMP_NUM_THREADS": "1", **os.environ}
    with socket.socket(socket.AF_UNIX) as listener:  # who asks before the server is there waits
        listener.bind(os.path.join(folder, SOCKET))
        listener.listen(64)
        server = subprocess.Popen(
            [sys.executable, "-P", __file__, SERVE, str(listener.fileno()), folder, *modules], env=environment,
            pass_fds=[listener.fileno()], process_group=0,
            stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
    os.environ[FOLDER] = folder
    try:
        yield
    finally:
        del os.environ[FOLDER]
        server.kill()
        server.communicate()
        shutil.rmtree(folder, ignore_errors=True)


def main() -> None:
    """Be the server, or start the worker that Ray asks for: `fork_server.py PROGRAM OPTION...`."""
    if sys.argv[1] == SERVE:
        return serve(*sys.argv[2:])
    given = {option: word.removeprefix(option) for word in sys.argv for option in OPTIONS if word.startswith(option)}
    words = [word for word in sys.argv[1:] if not word.startswith(OPTIONS)]
    context = json.loads(given.get(OPTIONS[0]) or "{}")
    os.environ.update(context.get("env_vars") or {})
    command = [*(context.get("command_prefix") or []), context.get("py_executable") or sys.executable]
    if command != [sys.executable] or not _forked(words):
        os.execvp(command[0], [*command, *words])


def _forked(words: list[str]) -> bool:
    """Ask the server for a fork that is this worker; whether there is one."""
    worker = {
        "words": words,
        "environment": dict(os.environ),
        "folder": os.getcwd(),
        "group": os.getpgrp(),
        "kill_first": OOM_SCORE.read_text(),
        "blocked": list(map(int, signal.pthread_sigmask(signal.SIG_BLOCK, []))),
    }
    try:
        with socket.socket(socket.AF_UNIX) as server:
            server.connect(os.path.join(os.environ[FOLDER], SOCKET))
            socket.send_fds(server, [b"\0"], [0, 1, 2])
            server.sendall(json.dumps(worker).encode())
            server.shutdown(socket.SHUT_WR)
            return server.recv(1) != b""
    except (KeyError, OSError):
        return False


def serve(descriptor: str, folder: str, *modules: str) -> None:
    """Import modules, then fork for each worker that is asked for, until stdin ends with who has started this process.

    A process with threads is not forked, for its forks might stand still. None of the modules may be Ray's, whose C++ part
    learns its job from the environment when it is imported, and draws its identifiers from there on.
    """
    import gc
    import importlib
    import select
    import shutil

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with socket.socket(fileno=int(descriptor)) as listener:
        for name in modules:
            importlib.import_module(name)
        gc.collect()
        gc.freeze()  # else the first collection of each fork would copy every page
        signal.signal(signal.SIGCHLD, _reap)
        asking: list[Any] = [0, listener]
        while _may_fork() and 0 not in select.select(asking, [], [])[0]:
            connection, _ = listener.accept()
            with connection:
                _, files, _, _ = socket.recv_fds(connection, 1, 3)
                with connection.makefile("rb") as request:
                    worker = json.load(request)
                if os.fork() == 0:
                    listener.close()
                    _become(worker, files, connection)
                for file in files:
                    os.close(file)
    shutil.rmtree(folder, ignore_errors=True)


def _may_fork() -> bool:
    """Whether no thread runs beside this one but those that are known to be of no harm to a fork."""
    others = Path("/proc/self/task").glob("*/comm")
    return len([name for name in map(Path.read_text, others) if name.strip() not in HARMLESS]) == 1


def _reap(*signal_and_frame: object) -> None:
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def _become(worker: dict[str, Any], files: list[int], connection: socket.socket) -> NoReturn:
    """Be a worker, as if Ray had started this process."""
    import runpy
    import tempfile

    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.pthread_sigmask(signal.SIG_SETMASK, worker["blocked"])
    os.setpgid(0, worker["group"])
    OOM_SCORE.write_text(worker["kill_first"])
    for number, file in enumerate(files):
        os.dup2(file, number)
        os.close(file)
    os.chdir(worker["folder"])
    os.environ.clear()
    os.environ.update(worker["environment"])
    tempfile.tempdir = None  # TMPDIR may be another
    sys.argv[:] = worker["words"]
    connection.sendall(b"\0")
    connection.close()
    runpy.run_path(sys.argv[0], run_name="__main__")
    sys.exit()


if __name__ == "__main__":
    main()
