"""The units of a night without Kubernetes: known keys, a program that is there, a time that comes every night."""

import configparser
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.cluster import commands

UNITS = sorted((Path(__file__).parents[2] / "cluster" / "systemd").iterdir())
SERVICE, TIMER = UNITS

needs_systemd = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd-analyze on this machine")


def analyze(*arguments):
    return subprocess.run(["systemd-analyze", *map(str, arguments)], capture_output=True, text=True)


def verified(folder):
    """What systemd has to say against the units in a folder."""
    done = analyze("verify", "--man=no", "--recursive-errors=no", *sorted(folder.iterdir()))
    return done.returncode, done.stdout + done.stderr


@pytest.fixture
def copied(tmp_path):
    """Both units in a folder, where a line may be changed."""
    for unit in UNITS:
        shutil.copy(unit, tmp_path)
    return tmp_path


def read(unit):
    parser = configparser.ConfigParser(interpolation=None, delimiters="=", comment_prefixes="#", strict=True)
    parser.optionxform = str
    parser.read(unit)
    return parser


def test_there_are_a_service_and_its_timer():
    assert [unit.name for unit in UNITS] == ["gan-nightly.service", "gan-nightly.timer"]


@needs_systemd
def test_systemd_has_nothing_to_say_against_the_units(copied):
    assert verified(copied) == (0, "")


@needs_systemd
@pytest.mark.parametrize(
    ("unit", "line", "wrong"),
    [
        ("gan-nightly.service", "KillMode=mixed", "KillModus=mixed"),
        ("gan-nightly.service", "KillMode=mixed", "KillMode=gently"),
        ("gan-nightly.service", "TimeoutStartSec=20h", "TimeoutStartSec=20 nights"),
        ("gan-nightly.service", "ExecStart=/bin/sh", "ExecStart=/bin/no-such-shell"),
        ("gan-nightly.timer", "OnCalendar=*-*-* 01:15:00", "OnCalendar=*-*-* 25:15:00"),
        ("gan-nightly.timer", "Persistent=true", "Persistant=true"),
    ],
)
def test_a_wrong_key_or_value_would_be_told(copied, unit, line, wrong):
    text = (copied / unit).read_text()
    assert line in text
    (copied / unit).write_text(text.replace(line, wrong))
    code, said = verified(copied)
    assert code != 0 or wrong.partition("=")[0] in said or "no-such-shell" in said


@needs_systemd
def test_the_timer_comes_once_a_night():
    done = analyze("calendar", "--iterations=3", read(TIMER)["Timer"]["OnCalendar"])
    assert done.returncode == 0, done.stderr
    assert len(set(re.findall(r"\d{4}-\d\d-\d\d 01:15:00", done.stdout))) == 3


def test_the_service_runs_a_command_that_gan_has():
    (command,) = re.findall(r"exec /opt/gan/.venv/bin/(gan .*)'$", read(SERVICE)["Service"]["ExecStart"])
    night = command.replace('"$GAN_CONFIG"', "configs/digits.yaml").replace(
        '"nightly-$(date +%%F)"', "nightly-2026-11-24"
    )
    assert commands.parse(night).params["name"] == "nightly-2026-11-24"
