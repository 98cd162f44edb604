"""Units for systemd, a crontab, and the scripts for Slurm: checked by the programs that read them."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from skysub.cli import options_of_verbs

DEPLOY = Path(__file__).parents[2] / "deploy"


def verified(*paths):
    done = subprocess.run(
        ["systemd-analyze", "verify", *map(str, paths)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    return done.stderr


@pytest.fixture
def systemd():
    if shutil.which("systemd-analyze") is None:
        pytest.skip("there is no systemd-analyze here")


@pytest.mark.usefixtures("systemd")
def test_systemd_finds_nothing_wrong(tmp_path):
    units = sorted((DEPLOY / "systemd").iterdir())
    names = [each.name for each in units]
    assert names == [
        f"{name}@.{kind}" for name in ("skysub-templates", "skysub") for kind in ("service", "timer")
    ]
    assert not verified(*units)
    units = units[2:]
    twin = tmp_path / "skysub@.service"
    twin.write_text(units[0].read_text().replace("SuccessExitStatus", "SuccesExitStatus"))
    assert "SuccesExitStatus" in verified(twin)


@pytest.mark.usefixtures("systemd")
def test_the_timer_fires_when_it_says():
    times = [
        line.partition("=")[2]
        for line in (DEPLOY / "systemd/skysub@.timer").read_text().splitlines()
        if line.startswith("OnCalendar=")
    ]
    fired = []
    for each in times:
        done = subprocess.run(
            ["systemd-analyze", "calendar", "--iterations=60", "--base-time=2026-11-28 00:00:00 UTC", each],
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
            env={"TZ": "UTC", "PATH": "/usr/bin:/bin"},
        )
        fired += [
            line.split()[-2] for line in done.stdout.splitlines() if "2026-11-28" in line and "UTC" in line
        ]
    hours = {each[:2] for each in fired}
    assert hours >= {f"{hour:02d}" for hour in (0, 7, 8, 12, 17)}
    assert "00:15:00" in fired
    assert "12:15:00" not in fired


def commands():
    """Kind of file, verb and options of each call of skysub in the files; uses of variables are left out."""
    for path in sorted(DEPLOY.rglob("*")):
        if path.is_dir() or path.name == "versions.txt":
            continue
        for line in path.read_text().splitlines():
            code = "" if line.lstrip().startswith("#") else line.partition(" #")[0].replace(",", " ")
            for verb, rest in re.findall(r"(?:^|[ /\[])skysub +([a-z]+) (.*)", code):
                yield path.suffix, verb, set(re.findall(r"(?<!\S)--[a-z-]+", rest.partition(" >> ")[0]))


@pytest.mark.parametrize("verb", ["run", "templates"])
def test_commands_of_schedules_are_those_that_there_are(verb):
    known = options_of_verbs()
    if verb not in known:
        pytest.skip(f"there is no verb {verb} in this version")
    found = [(kind, options) for kind, name, options in commands() if name == verb]
    assert {kind for kind, _ in found} >= {".service", ".crontab", ".sh", ".yaml"}
    for kind, options in found:
        assert options <= set(known[verb]), kind


def test_schedules_call_nothing_else():
    assert {verb for _, verb, _ in commands()} == {"run", "templates"}


def test_shell_scripts_are_sound():
    for path in [*DEPLOY.rglob("*.sh")]:
        subprocess.run(["bash", "-n", str(path)], check=True)


def test_the_exit_code_in_use_is_the_one_that_schedules_forgive():
    from skysub.cli import IN_USE

    for path in (
        "systemd/skysub@.service",
        "cron/skysub.crontab",
        "slurm/nightly.sh",
        "kubernetes/cronjob.yaml",
    ):
        assert str(IN_USE) in (DEPLOY / path).read_text(), path
