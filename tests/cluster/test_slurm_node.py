"""Campaigns on a real Slurm of one node: jobs that are refused, lost, requeued, and none that is left."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

import skysub

from .conftest import write_visits
from .slurm_node import SlurmNode, why_not

pytestmark = pytest.mark.long
CAMPAIGN = Path(__file__).parents[1] / "campaign"
PATH = os.pathsep.join([str(CAMPAIGN), *filter(None, [os.environ.get("PYTHONPATH")])])
UNITS = 120
RECIPE = """
inputs: {raw}/*.fits
steps:
  campaign_steps:tampered: {{seconds: {seconds}, background: {{fit: {{superpixel: 32}}}}}}
cluster:
  profile: {profile}
"""
SLURM = """slurm
  cores: 2
  jobs: 2
  memory: 2 GiB
  interface: lo
  prologue: ["export PYTHONPATH={path}:$PYTHONPATH"]
"""


@pytest.fixture(scope="module")
def node(tmp_path_factory):
    reason = why_not()
    if reason:
        pytest.skip(reason)
    made = SlurmNode(tmp_path_factory.mktemp("slurm"))
    try:
        made.start()
        yield made
    finally:
        made.stop()


@pytest.fixture(scope="module")
def visits(tmp_path_factory):
    """Thirty visits of four detectors."""
    return write_visits(tmp_path_factory.mktemp("raw"), UNITS // 4, 4)


@pytest.fixture
def recipe(tmp_path, visits):
    def write(name="recipe", *, profile=SLURM, seconds=0.0):
        path = tmp_path / f"{name}.yaml"
        path.write_text(RECIPE.format(raw=visits, seconds=seconds, profile=profile.format(path=CAMPAIGN)))
        return path

    return write


@pytest.fixture
def command(node, tmp_path):
    """Call ``skysub`` where Slurm's commands find the node."""

    def call(*arguments, timeout=400):
        done = subprocess.run(
            [sys.executable, "-m", "skysub", *map(str, arguments)],
            env={**node.environment, "PYTHONPATH": PATH},
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
            cwd=tmp_path,
        )
        return done.returncode, done.stdout + done.stderr

    return call


def pixels(output):
    campaign = skysub.open_campaign(output)
    return {
        (visit, detector): campaign.visit_image(visit, detector).image.tobytes()
        for visit, detector, _ in campaign.markers()
    }


def waited(condition, seconds, what):
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, what()
        time.sleep(1)
    return found


def workers_of(node):
    return [
        job for job, (name, state) in node.queue().items() if "coordinator" not in name and state == "RUNNING"
    ]


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("cluster.queue=nowhere", "sbatch says: invalid partition specified: nowhere"),
        (
            "cluster={queue: closed, account: nobody}",
            "it says Job's account not known, so it can't use this partition",
        ),
        ("cluster.memory=64 GiB", "sbatch says: Memory specification can not be satisfied"),
        ("cluster.queue=short", "the queue will never start the jobs, it says PartitionTimeLimit"),
        ("cluster.python=/nowhere/python", "no unit was finished meanwhile.*No such file or directory"),
        ("cluster.interface=ib77", "cluster.interface: 'ib77' is not a valid network interface"),
    ],
)
def test_what_cannot_work_is_said_in_slurms_own_words(node, command, recipe, tmp_path, setting, words):
    code, said = command("run", recipe(), "--output", tmp_path / "out", "--set", setting, timeout=60)
    assert code == 1
    import re

    assert re.search(words, said), said
    assert node.queue() == {}


def test_a_profile_is_checked_with_a_job_of_its_own(node, command, tmp_path):
    settings = ("cores=1", "memory=2 GiB", "interface=lo")
    given = [word for each in settings for word in ("--set", f"cluster.{each}")]
    code, said = command("cluster", "check", "slurm", "--output", tmp_path / "out", "--seconds", "60", *given)
    assert code == 0, said
    assert "passed     skysub-" in said
    assert node.queue() == {}


def test_the_bits_of_a_local_run_though_a_worker_is_lost_and_the_coordinator_requeued(
    node, command, recipe, tmp_path
):
    code, said = command("run", recipe("local", profile="local"), "--output", tmp_path / "local")
    assert code == 0, said
    output = tmp_path / "out"
    code, job = command("submit", recipe(seconds=1.5), "--output", output)
    assert code == 0, job
    job = job.splitlines()[0]
    code, said = command("submit", recipe(seconds=1.5), "--output", output)
    assert (code, "is in the queue already" in said) == (75, True)

    def status():
        return command("status", output)[1]

    lost = waited(lambda: len(workers_of(node)) == 2 and workers_of(node), 120, status)[0]
    waited(lambda: "left" in status() and " 0 of 120 units" not in status(), 120, status)
    node.call("scancel", lost)
    waited(lambda: len(set(workers_of(node)) - {lost}) == 2, 60, node.queue)
    assert "running" in status()
    node.call("scontrol", "requeue", job)
    waited(lambda: node.queue().get(job, ("", ""))[1] == "PENDING", 60, node.queue)
    waited(lambda: not workers_of(node), 60, node.queue)
    assert "pending" in status()
    waited(lambda: command("status", output)[0] == 0, 400, status)
    waited(lambda: not node.queue(), 60, node.queue)
    assert pixels(output) == pixels(tmp_path / "local")


def test_a_submitted_campaign_is_cancelled_from_anywhere_that_sees_the_store(node, command, recipe, tmp_path):
    output = tmp_path / "out"
    code, said = command("submit", recipe(seconds=1.5), "--output", output)
    assert code == 0, said
    waited(lambda: "units done" in command("status", output)[1], 120, lambda: command("status", output)[1])
    waited(lambda: len(workers_of(node)) == 2, 120, node.queue)
    code, said = command("cancel", output, "--wait", "60")
    assert (code, "finishes the units in flight" in said) == (0, True)
    waited(lambda: not node.queue(), 60, node.queue)
    assert command("status", output)[0] == 2
    code, said = command("cancel", output)
    assert (code, "nobody works on" in said) == (0, True)


def test_workers_that_end_before_their_walltime_are_followed_by_others(node, command, recipe, tmp_path):
    """Twenty units of six seconds on two cores: a minute and more, in jobs of one at most."""
    out = tmp_path / "out"
    visits = [word for visit in range(5) for word in ("--visit", visit)]
    path = recipe(seconds=6.0, profile=SLURM.replace("jobs: 2", "jobs: 1") + "  walltime: '00:01:00'\n")
    code, said = command("run", path, "--output", out, *visits, timeout=900)
    assert code == 0, said
    log = (out / "runs/0001/run.log").read_text()
    assert "jobs ended so far" in log
    assert "failed" not in said
    assert node.queue() == {}


def test_all_jobs_may_go_and_nothing_is_lost(node, command, recipe, tmp_path):
    out = tmp_path / "out"
    process = subprocess.Popen(
        [sys.executable, "-m", "skysub", "run", str(recipe(seconds=1.0)), "--output", str(out)],
        env={**node.environment, "PYTHONPATH": PATH},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=tmp_path,
    )
    waited(lambda: len(workers_of(node)) == 2, 60, node.queue)
    waited(lambda: " 0 of 120 units" not in command("status", out)[1], 120, node.queue)
    node.call("scancel", *workers_of(node))
    said = process.communicate(timeout=300)[0]
    assert process.returncode == 0, said
    assert "120 units done" in said
    assert node.queue() == {}


def test_a_queue_that_gives_nothing_is_waited_for_and_named(node, command, recipe, tmp_path):
    node.call("scontrol", "update", "PartitionName=debug", "State=DOWN")
    try:
        code, said = command(
            "run", recipe(), "--output", tmp_path / "out", "--set", "cluster.patience=12", timeout=90
        )
    finally:
        node.call("scontrol", "update", "PartitionName=debug", "State=UP")
    assert code == 1
    assert "no worker came in 12 s" in said
    assert "PartitionDown" in said, said
    assert node.queue() == {}


def test_no_worker_for_a_while_loses_nothing(node, command, recipe, tmp_path):
    """All jobs go, the queue gives none for a quarter of a minute, and then some again."""
    out = tmp_path / "out"
    process = subprocess.Popen(
        [sys.executable, "-m", "skysub", "run", str(recipe(seconds=1.0)), "--output", str(out)],
        env={**node.environment, "PYTHONPATH": PATH},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=tmp_path,
    )
    try:
        waited(lambda: len(workers_of(node)) == 2, 60, node.queue)
        waited(lambda: " 0 of 120 units" not in command("status", out)[1], 120, node.queue)
        node.call("scontrol", "update", "PartitionName=debug", "State=DOWN")
        node.call("scancel", *workers_of(node))
        waited(lambda: not workers_of(node), 30, node.queue)
        time.sleep(15)
        assert process.poll() is None
    finally:
        node.call("scontrol", "update", "PartitionName=debug", "State=UP")
    said = process.communicate(timeout=400)[0]
    assert process.returncode == 0, said
    assert "120 units done" in said
    assert node.queue() == {}


def test_a_unit_that_takes_more_memory_than_its_job_has_is_a_failure_of_its_own(
    node, command, recipe, tmp_path
):
    """Slurm kills each job that does it; the units beside it are done."""
    out = tmp_path / "out"
    bad = ["--set", "steps.campaign_steps:tampered.bad=[2]", "--set", "steps.campaign_steps:tampered.how=hog"]
    code, said = command("run", recipe(), "--output", out, "--visit", "0", "--visit", "1", *bad, timeout=590)
    assert code == 1, said
    campaign = skysub.open_campaign(out)
    failures = campaign.status().failures
    assert [(each.visit, each.detector) for each in failures] == [(0, 2), (1, 2)], said
    assert all("too little memory" in each.message for each in failures)
    assert campaign.status().counts["done"] == 6
    assert node.queue() == {}


def test_a_walltime_that_is_shorter_than_a_unit_is_said(node, command, recipe, tmp_path):
    """At once where the time is known from units that were done, else after some jobs have ended in vain."""
    out = tmp_path / "out"
    profile = SLURM.replace("jobs: 2", "jobs: 1").replace("cores: 2", "cores: 1") + "  walltime: '00:01:00'\n"
    given = ["--visit", "0", "--set", "cluster.memory=1 GiB"]
    code, said = command("run", recipe(seconds=100.0, profile=profile), "--output", out, *given, timeout=590)
    assert code == 1
    assert "their walltime is shorter than a unit" in said, said
    assert node.queue() == {}
