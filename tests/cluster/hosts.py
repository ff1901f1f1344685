"""Machines with addresses of their own, on this one: network namespaces that a bridge connects."""

import shlex
import shutil
from dataclasses import dataclass
from pathlib import Path

from tests.cluster.transcript import Shell
from tests.pipelines.conftest import until

NETWORK = "10.77.0"
# What making them takes; in a user namespace of its own, so it needs no rights and changes nothing of this machine's network.
PROBE = "ip link add switch type bridge && ip link add port type veth peer name eth0"


def obstacle(shell: Shell) -> str | None:
    """Why there can be none here, if so."""
    missing = [program for program in ("ip", "nsenter", "unshare") if shutil.which(program) is None]
    if missing:
        return f"no {', '.join(missing)} on this machine"
    code, answer = shell.run(f"unshare --user --map-root-user --net sh -c {shlex.quote(PROBE)}")
    return f"no network namespaces on this machine: {answer.strip()}" if code else None


@dataclass(frozen=True)
class Namespace:
    """A network of its own, for as long as its process lives."""

    shell: Shell
    process: int

    @classmethod
    def made(cls, shell: Shell, command: str) -> "Namespace":
        """The namespace that a command makes and then sleeps in."""
        code, answer = shell.run(f"{command} sleep infinity & echo $!")
        assert code == 0, answer
        process = int(answer.split()[-1])
        until(lambda: (Path("/proc") / str(process) / "comm").read_text().strip() == "sleep")
        return cls(shell, process)

    def enter(self, command: str) -> str:
        """The command, as it is run in there."""
        return f"nsenter --target {self.process} --user --net --preserve-credentials {command}"

    def run(self, command: str) -> str:
        """Run a command in there; what it said."""
        code, answer = self.shell.run(self.enter(command))
        assert code == 0, f"{command}\n{answer}"
        return answer


@dataclass(frozen=True)
class Host(Namespace):
    """A machine, with its address and the cable to the switch."""

    address: str = ""
    switch: Namespace | None = None
    port: str = ""

    def unplug(self) -> None:
        """From now on no packet reaches it or leaves it; its processes go on."""
        assert self.switch is not None
        self.switch.run(f"ip link set {self.port} down")


def connected(shell: Shell, count: int) -> list[Host]:
    """So many machines on one switch."""
    switch = Namespace.made(shell, "unshare --user --map-root-user --net")
    switch.run("ip link add switch type bridge")
    switch.run("ip link set switch up")
    hosts = []
    for number in range(1, count + 1):
        process = Namespace.made(shell, switch.enter("unshare --net")).process
        host = Host(shell, process, f"{NETWORK}.{number}", switch, f"port{number}")
        switch.run(f"ip link add {host.port} type veth peer name eth0 netns {process}")
        switch.run(f"ip link set {host.port} master switch up")
        for line in (
            "link set lo up", f"address add {host.address}/24 dev eth0", "link set eth0 up",
            f"route add default via {NETWORK}.254",  # of nobody: what Ray asks for its own address
        ):  # fmt: skip
            host.run(f"ip {line}")
        hosts.append(host)
    return hosts
