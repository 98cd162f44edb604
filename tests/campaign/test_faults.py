"""What goes wrong: kills at any moment, damaged inputs, failing detectors, outputs that cannot be written."""

import json
import os
import random
import resource
import shutil
import signal
import subprocess
import time
from collections import Counter
from pathlib import Path

import numpy as np
import psutil
import pytest

import skysub
from skysub.campaign.recipe import load_recipe
from skysub.campaign.run import run_campaign
from skysub.campaign.store.folder_lock import locked
from skysub.errors import InputChangedError, OutputError, OutputInUseError, StoreVersionError

WORKERS = 2


@pytest.fixture
def tampered(raw, tmp_path, steps):  # noqa: ARG001 - steps makes them importable
    """A recipe that leaves a line per unit begun, and its ledger."""
    recipe, ledger = tmp_path / "tampered.yaml", tmp_path / "ledger"
    recipe.write_text(
        f"""
inputs: '{raw}/*.fits'
steps:
  'campaign_steps:tampered':
    background: {{fit: {{superpixel: 32}}}}
    seconds: 0.05
    ledger: {ledger}
"""
    )
    return recipe, ledger


def begun(ledger):
    return Counter(ledger.read_text().splitlines()) if ledger.exists() else Counter()


def workers_of(process):
    """Processes that a coordinator started, its resource tracker left out."""
    try:
        children = psutil.Process(process.pid).children(recursive=True)
        return [child for child in children if "resource_tracker" not in " ".join(child.cmdline())]
    except psutil.Error:
        return []


def kill(process, what, rng):
    """kill -9 of one worker, of the coordinator, or of all."""
    if what == "worker":
        for child in rng.sample(found := workers_of(process), min(1, len(found))):
            child.kill()
        return
    if what == "coordinator":
        os.kill(process.pid, signal.SIGKILL)
    else:
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate(timeout=60)


def torture(command, recipe, ledger, output, reference, *, kills, seed, fingerprint):
    """Start and kill until the last kill, then let it finish; returns how often a unit was begun again."""
    rng = random.Random(seed)
    arguments = ["run", recipe, "--output", output, "--set", f"cluster.workers={WORKERS}"]
    process = command(*arguments)
    for number in range(kills):
        what = ("worker", "coordinator", "everything")[number % 3]
        seen, patience = sum(begun(ledger).values()), time.monotonic() + 30
        # half of the kills while units are worked on, half at any moment
        while rng.random() < 0.5 and sum(begun(ledger).values()) == seen and process.poll() is None:
            if time.monotonic() > patience:
                break
            time.sleep(0.01)
        time.sleep(rng.random() * 0.5)
        if process.poll() is not None:
            process.communicate()
            process = command(*arguments)
            continue
        kill(process, what, rng)
        if what != "worker":
            # what readers see between kill and restart is whole
            if (output / "runs/0001/run.json").exists():
                seen_now = fingerprint(output)
                assert seen_now.items() <= reference.items()
            process = command(*arguments)
    text, _ = process.communicate(timeout=180)
    if process.returncode:
        # the last kill may have taken workers until Dask gave a unit up: one more start
        process = command(*arguments)
        text, _ = process.communicate(timeout=180)
    assert process.returncode == 0, text
    assert fingerprint(output) == reference
    return sum(begun(ledger).values()) - len(reference)


def reference_of(recipe, ledger, tmp_path, fingerprint):
    made = load_recipe(str(recipe), cluster="threads")
    run_campaign(made, tmp_path / "undisturbed")
    ledger.unlink()
    return fingerprint(tmp_path / "undisturbed")


def test_killed_at_random_moments(tampered, tmp_path, command, fingerprint):
    recipe, ledger = tampered
    reference = reference_of(recipe, ledger, tmp_path, fingerprint)
    repeated = torture(
        command, recipe, ledger, tmp_path / "out", reference, kills=3, seed=1, fingerprint=fingerprint
    )
    assert repeated <= 3 * WORKERS


@pytest.mark.long
def test_killed_twenty_times(tampered, raw, tmp_path, command, fingerprint, make_visit):
    recipe, ledger = tampered
    for visit in range(20, 40):
        for detector in (0, 1, 2):
            make_visit(raw / f"v{visit}_d{detector}.fits", visit, detector)
    reference = reference_of(recipe, ledger, tmp_path, fingerprint)
    repeated = torture(
        command, recipe, ledger, tmp_path / "out", reference, kills=20, seed=2, fingerprint=fingerprint
    )
    assert repeated <= 20 * WORKERS


def test_ctrl_c_stops_cleanly_and_a_second_start_continues(tampered, tmp_path, command, fingerprint):
    recipe, ledger = tampered
    reference = reference_of(recipe, ledger, tmp_path, fingerprint)
    output = tmp_path / "out"
    slow = "--set", "steps.campaign_steps:tampered.seconds=0.7", "--set", "cluster.workers=1"
    process = command("run", recipe, "--output", output, *slow)
    while not begun(ledger):
        time.sleep(0.02)
    # as a terminal does: to the whole group
    os.killpg(process.pid, signal.SIGINT)
    text, _ = process.communicate(timeout=60)
    assert process.returncode == 2, text
    assert "finishing the units in flight" in text
    assert "Traceback" not in text
    done = fingerprint(output)
    # those begun were finished, the others not begun
    assert 1 <= len(done) == sum(begun(ledger).values()) < 6
    assert not any(child.is_running() for child in workers_of(process))
    run_campaign(load_recipe(str(recipe), cluster="threads", settings=slow[1:2]), output)
    assert sum(begun(ledger).values()) == 6
    assert fingerprint(output).keys() == reference.keys()


def test_ctrl_c_while_workers_start(tampered, tmp_path, command):
    recipe, _ = tampered
    process = command("run", recipe, "--output", tmp_path / "out", "--set", "cluster.workers=1")
    while not workers_of(process):
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGINT)
    text, _ = process.communicate(timeout=60)
    assert process.returncode in {2, 130}, text
    assert "Traceback" not in text


def test_a_detector_that_raises(tampered, tmp_path):
    recipe, ledger = tampered
    given = ["steps.campaign_steps:tampered.bad=[1]"]
    output = tmp_path / "out"
    outcome = run_campaign(load_recipe(str(recipe), cluster="threads", settings=given), output)
    assert (outcome.done, outcome.failed) == (4, 2)
    status = skysub.open_campaign(output).status()
    assert status.exit_code == 1
    failure = status.failures[0]
    assert (failure.visit, failure.detector) == (11, 1)
    assert failure.message == "ValueError: detector 1 is <b>odd</b>"
    assert "campaign_steps.py" in failure.traceback
    with pytest.raises(
        skysub.errors.NotDoneError, match=r"visit 11 detector 1 failed: .*v11_d1.fits: ValueError: detector 1"
    ):
        skysub.open_campaign(output).visit_image(11, 1)
    # what is done of the visit stands in the arrays already
    dataset = skysub.open_campaign(output).open_dataset("preliminary_visit_image_background")
    assert np.isfinite(dataset["mean"].sel(visit=11, detector=0)).all()
    # the next start tries the failed ones again, and only those
    before = begun(ledger)
    run_campaign(load_recipe(str(recipe), cluster="threads", settings=given), output)
    assert begun(ledger) - before == Counter({"11 1": 1, "12 1": 1})


def test_a_unit_that_kills_its_workers(tampered, raw, tmp_path, command):
    recipe, _ = tampered
    for path in raw.glob("v12*.fits"):
        path.unlink()
    output = tmp_path / "out"
    settings = ["steps.campaign_steps:tampered.bad=[1]", "steps.campaign_steps:tampered.how=die"]
    arguments = [part for setting in settings for part in ("--set", setting)]
    process = command("run", recipe, "--output", output, *arguments, "--set", "cluster.workers=2")
    text, _ = process.communicate(timeout=180)
    assert process.returncode == 1, text
    status = skysub.open_campaign(output).status()
    assert status.counts == {"done": 2, "failed": 1, "waiting": 0, "left": 0, "unreadable": 0}
    assert "each worker that tried it died" in status.failures[0].message


def test_a_unit_whose_workers_died_of_something_else_is_tried_by_itself(tampered, raw, tmp_path, command):
    """Dask blames a unit for two dead workers; a third, alone, does it."""
    recipe, ledger = tampered
    for path in raw.glob("v12*.fits"):
        path.unlink()
    output = tmp_path / "out"
    settings = ["bad=[1,2]", "how=die twice", f"ledger={ledger}"]
    arguments = [part for each in settings for part in ("--set", f"steps.campaign_steps:tampered.{each}")]
    process = command("run", recipe, "--output", output, *arguments, "--set", "cluster.workers=2")
    text, _ = process.communicate(timeout=180)
    assert process.returncode == 0, text
    assert skysub.open_campaign(output).status().counts["done"] == 3
    assert {begun(ledger)[f"11 {detector}"] for detector in (1, 2)} == {3}
    assert (
        "visit 11 detector 1 died; it is tried again by itself" in (output / "runs/0001/run.log").read_text()
    )


def test_a_unit_that_takes_others_of_its_task_along(tampered, raw, tmp_path, make_visit):
    """Short units share a task; what ends the task is looked for in each of them alone."""
    recipe, ledger = tampered
    for detector in range(60):
        make_visit(raw / f"v13_d{detector}.fits", 13, detector, shape=(40, 40))
    name = "steps.campaign_steps:tampered"
    settings = [f"{name}.bad=[55]", f"{name}.how=passing", f"{name}.seconds=0"]
    output = tmp_path / "out"
    outcome = run_campaign(load_recipe(str(recipe), cluster="threads", settings=settings), output)
    assert (outcome.done, outcome.failed, outcome.left) == (65, 1, 0)
    (failure,) = skysub.open_campaign(output).status().failures
    assert (failure.detector, failure.message) == (55, "OSError: [Errno 5] the file system is away")
    # three tries with others, three alone
    assert begun(ledger)["13 55"] == 6
    assert all(times == 1 for unit, times in begun(ledger).items() if unit != "13 55")


def test_a_corrupt_file_among_good_ones(raw, tmp_path, start, fingerprint):
    (raw / "bad.fits").write_bytes(b"no FITS at all" * 300)
    good = (raw / "v11_d1.fits").read_bytes()
    # a sound header, and pixels that end too early or are damaged
    (raw / "v11_d1.fits").write_bytes(good[: len(good) // 2])
    outcome = start(raw, tmp_path / "out")
    assert (outcome.done, outcome.failed, outcome.unreadable) == (5, 0, 2)
    status = skysub.open_campaign(tmp_path / "out").status()
    assert status.exit_code == 1
    assert {Path(failure.path).name for failure in status.failures} == {"bad.fits", "v11_d1.fits"}
    assert all(failure.message for failure in status.failures)
    # mended: the next start does what is missing, and the complaint is gone
    (raw / "v11_d1.fits").write_bytes(good)
    (raw / "bad.fits").unlink()
    outcome = start(raw, tmp_path / "out")
    assert (outcome.done, outcome.earlier) == (1, 5)
    assert skysub.open_campaign(tmp_path / "out").status().exit_code == 0
    start(raw, tmp_path / "undisturbed")
    assert fingerprint(tmp_path / "out").keys() == fingerprint(tmp_path / "undisturbed").keys()


def test_an_input_that_changes_after_the_plan(raw, tmp_path, start, make_visit, monkeypatch):
    from skysub.campaign.plan import Plan

    freeze = Plan.freeze

    def freeze_then_change(plan):
        run = freeze(plan)
        make_visit(raw / "v12_d0.fits", 12, 0, level=100.0)
        (raw / "v11_d2.fits").unlink()
        return run

    monkeypatch.setattr(Plan, "freeze", freeze_then_change)
    outcome = start(raw, tmp_path / "out")
    monkeypatch.undo()
    assert (outcome.done, outcome.failed) == (4, 2)
    messages = {f.detector: f.message for f in skysub.open_campaign(tmp_path / "out").status().failures}
    assert "is gone since the campaign was planned" in messages[2]
    assert "changed since the campaign was planned" in messages[0]
    make_visit(raw / "v11_d2.fits", 11, 2)
    assert start(raw, tmp_path / "out").done == 2


def test_pixels_on_demand_of_an_input_that_changed(raw, tmp_path, start, make_visit):
    start(raw, tmp_path / "out", "products.pixels=on_demand")
    make_visit(raw / "v12_d0.fits", 12, 0, level=100.0)
    campaign = skysub.open_campaign(tmp_path / "out")
    with pytest.raises(InputChangedError, match=r"v12_d0\.fits changed since the campaign was planned"):
        campaign.visit_image(12, 0)
    assert campaign.mask(12, 0).any()


def test_a_second_run_on_an_output_in_use(raw, tmp_path, start):
    with (
        locked(tmp_path / "out"),
        pytest.raises(OutputInUseError, match=rf"process {os.getpid()} on .* since"),
    ):
        start(raw, tmp_path / "out")
    assert start(raw, tmp_path / "out").done == 6


def test_a_store_from_a_newer_version(raw, tmp_path, start):
    start(raw, tmp_path / "out")
    path = tmp_path / "out/runs/0001/run.json"
    record = json.loads(path.read_text())
    # another layout may say otherwise what its checksum is
    del record["crc32c"]
    path.write_text(json.dumps(record | {"format": 99, "versions": {"skysub": "9.1"}}))
    for act in (lambda: start(raw, tmp_path / "out"), lambda: skysub.open_campaign(tmp_path / "out")):
        with pytest.raises(
            StoreVersionError, match=r"layout 99, written by skysub 9\.1.*install skysub 9\.1"
        ):
            act()


def test_a_run_that_was_never_planned_to_the_end_is_removed(raw, tmp_path, start):
    debris = tmp_path / "out/runs/0001/images.zarr/preliminary_visit_image"
    debris.mkdir(parents=True)
    outcome = start(raw, tmp_path / "out")
    assert (outcome.run, outcome.done) == ("0001", 6)


def test_a_plan_that_is_not_whole_is_passed_over(raw, tmp_path, start):
    (tmp_path / "out/runs/0001").mkdir(parents=True)
    (tmp_path / "out/runs/0001/run.json").write_text('{"format": 1, "st')
    outcome = start(raw, tmp_path / "out")
    assert (outcome.run, outcome.done) == ("0002", 6)


def test_a_marker_that_is_not_whole_is_none(tmp_path, tampered):
    recipe, _ = tampered
    output = tmp_path / "out"
    settings = ["steps.campaign_steps:tampered.bad=[2]"]
    run_campaign(load_recipe(str(recipe), cluster="threads", settings=settings), output)
    marker = output / "runs/0001/units/campaign_steps.tampered/11/0.json"
    marker.write_bytes(b"")
    assert skysub.open_campaign(output).status().counts["left"] == 1
    outcome = run_campaign(
        load_recipe(str(recipe), cluster="threads", settings=settings), output, stream=None
    )
    assert outcome.done == 1


def test_verify_redoes_what_is_damaged(raw, tmp_path, start, fingerprint):
    output = tmp_path / "out"
    start(raw, output)
    before = fingerprint(output)
    shard = output / "runs/0001/images.zarr/preliminary_visit_image/image/c.1.2.0.0"
    data = bytearray(shard.read_bytes())
    data[100] ^= 1
    shard.write_bytes(data)
    (output / "runs/0001/images.zarr/preliminary_visit_image/mask/c.0.0.0.0").unlink()
    assert start(raw, output).done == 0
    assert start(raw, output, verify=True).done == 2
    assert fingerprint(output) == before


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small file system")
def test_a_full_disk(raw, tmp_path, start, fingerprint):
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", str(disk)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("a tmpfs cannot be mounted here")
    try:
        with pytest.raises(OutputError, match=r"there is no space left. What is done is safe"):
            start(raw, disk / "out")
        done = fingerprint(disk / "out")
        assert 0 < len(done) < 6
        subprocess.run(["mount", "-o", "remount,size=20m", str(disk)], check=True)
        outcome = start(raw, disk / "out")
        assert (outcome.done, outcome.earlier) == (6 - len(done), len(done))
        start(raw, tmp_path / "undisturbed")
        assert fingerprint(disk / "out") == fingerprint(tmp_path / "undisturbed")
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


def test_files_that_may_not_grow(raw, tmp_path, start):
    # as a quota does; a limit of the whole process, so the log has to fit as well
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, limit[1]))
    try:
        with pytest.raises(OutputError, match="larger than this system allows"):
            start(raw, tmp_path / "out", "products.compression=none")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        signal.signal(signal.SIGXFSZ, before)
    assert start(raw, tmp_path / "out", "products.compression=none").done == 6


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a file system read-only")
def test_a_read_only_output(raw, tmp_path, start):
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(
        ["mount", "-t", "tmpfs", "tmpfs", str(disk)], capture_output=True, check=False
    ).returncode:
        pytest.skip("a tmpfs cannot be mounted here")
    try:
        start(raw, disk / "out")
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        with pytest.raises(OutputError, match="it is read-only"):
            start(raw, disk / "out", "steps.background.fit.order=2")
        # reading goes on
        assert skysub.open_campaign(disk / "out").visit_image(11, 0).shape == (96, 128)
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


def test_an_output_that_is_a_file(raw, tmp_path, start):
    (tmp_path / "out").write_text("")
    with pytest.raises(OutputError, match="is a file, not a folder"):
        start(raw, tmp_path / "out")


def test_leftovers_of_a_killed_write_are_removed(raw, tmp_path, start):
    output = tmp_path / "out"
    start(raw, output)
    run = output / "runs/0001"
    shutil.rmtree(run / "units")
    # what is not whole lies with the markers of its visit, and goes with them
    folder = run / "units/background/11"
    folder.mkdir(parents=True)
    (folder / ".c.0.1.0.0.deadbeef.partial").write_bytes(b"half")
    assert start(raw, output).done == 6
    assert not [path for path in run.rglob("*") if path.name.endswith(".partial")]


def test_leftovers_go_where_a_detector_fails_as_well(tampered, tmp_path):
    recipe, _ = tampered
    output = tmp_path / "out"
    made = load_recipe(str(recipe), cluster="threads", settings=["steps.campaign_steps:tampered.bad=[2]"])
    run_campaign(made, output)
    folder = output / "runs/0001/units/campaign_steps.tampered/11"
    (folder / ".c.0.2.0.0.deadbeef.partial").write_bytes(b"half")
    run_campaign(made, output)
    assert not (folder / ".c.0.2.0.0.deadbeef.partial").exists()
    assert (folder / "0.json").exists()
