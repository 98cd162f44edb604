"""What goes wrong with a campaign in a bucket: kills, a server that goes away, two coordinators at once."""

import contextlib
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest

import skysub
from skysub.campaign.recipe import load_recipe
from skysub.campaign.run import run_campaign
from skysub.campaign.store import owner, s3_client
from skysub.campaign.store.address import place_at
from skysub.errors import OutputError, OutputInUseError


@pytest.fixture
def recipe(raw, tmp_path, steps):  # noqa: ARG001 - steps makes them importable
    """A recipe that leaves a line per unit begun in tmp_path/ledger, and dawdles."""
    path = tmp_path / "tampered.yaml"
    path.write_text(
        f"""
inputs: '{raw}/*.fits'
steps:
  'campaign_steps:tampered':
    background: {{fit: {{superpixel: 32}}}}
    seconds: 0.2
    ledger: {tmp_path / "ledger"}
"""
    )
    return path


def begun(tmp_path):
    ledger = tmp_path / "ledger"
    return Counter(ledger.read_text().splitlines()) if ledger.exists() else Counter()


def wait_for(what, seconds=60):
    patience = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < patience
        time.sleep(0.01)


def test_killed_worker_and_coordinator(recipe, tmp_path, command, fingerprint, url):
    process = command("run", recipe, "--output", url, "--set", "cluster.workers=2")
    wait_for(lambda: begun(tmp_path))
    children = psutil.Process(process.pid).children(recursive=True)
    workers = [child for child in children if "spawn_main" in " ".join(child.cmdline())]
    assert len(workers) == 2
    workers[0].kill()
    markers = place_at(url) / "runs/0001/units/campaign_steps.tampered/11"
    wait_for(lambda: [name for name in markers.names() if not name.endswith("failed.json")])
    process.kill()
    process.communicate(timeout=60)
    for child in psutil.wait_procs(workers, timeout=0.2)[1]:
        with contextlib.suppress(psutil.NoSuchProcess):
            child.kill()
    # what readers see between kill and restart is whole
    done = fingerprint(url)
    assert 1 <= len(done) < 6
    assert place_at(f"{url}/lock").exists()
    # its lock is no obstacle: that process is gone
    made = load_recipe(str(recipe), cluster="threads")
    outcome = run_campaign(made, url)
    assert (outcome.run, outcome.failed) == ("0001", 0)
    assert len(done) <= outcome.earlier < 6
    assert not place_at(f"{url}/lock").exists()
    # no more than what was in flight at each of the two kills was begun again
    assert sum(begun(tmp_path).values()) - 6 <= 4
    run_campaign(made, tmp_path / "undisturbed")
    assert fingerprint(url) == fingerprint(tmp_path / "undisturbed")


@pytest.mark.long
def test_killed_ten_times(recipe, raw, tmp_path, command, fingerprint, make_visit, url):
    for visit in range(20, 30):
        for detector in (0, 1, 2):
            make_visit(raw / f"v{visit}_d{detector}.fits", visit, detector)
    run_campaign(load_recipe(str(recipe), cluster="threads"), tmp_path / "undisturbed")
    (tmp_path / "ledger").unlink()
    reference = fingerprint(tmp_path / "undisturbed")
    rng = random.Random(3)
    arguments = "run", recipe, "--output", url, "--set", "cluster.workers=2"
    process = command(*arguments)
    for number in range(10):
        seen = begun(tmp_path).total()
        wait_for(lambda n=seen, p=process: begun(tmp_path).total() > n or p.poll() is not None)
        time.sleep(rng.random() * 0.5)
        if number % 3 == 0:
            children = psutil.Process(process.pid).children(recursive=True)
            workers = [child for child in children if "spawn_main" in " ".join(child.cmdline())]
            for child in rng.sample(workers, min(1, len(workers))):
                child.kill()
            continue
        if number % 3 == 1:
            process.kill()
        else:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate(timeout=60)
        if place_at(f"{url}/runs/0001/run.json").exists():
            assert fingerprint(url).items() <= reference.items()
        process = command(*arguments)
    text, _ = process.communicate(timeout=300)
    if process.returncode:
        # the last kill may have taken workers until Dask gave a unit up: one more start
        text, _ = command(*arguments).communicate(timeout=300)
    assert fingerprint(url) == reference, text
    assert begun(tmp_path).total() - len(reference) <= 20


def test_a_server_that_is_away_for_a_while(recipe, raw, tmp_path, server, url, fingerprint, caplog):
    made = load_recipe(str(recipe), inputs=[f"{raw}/v11*.fits"], cluster="threads")
    away = threading.Event()

    def interrupt():
        wait_for(lambda: begun(tmp_path))
        server.stop()
        away.set()
        time.sleep(1)
        server.start()

    # and busy at times
    asked = iter(range(10**6))
    server.before = lambda *_: next(asked) % 20 == 19
    with ThreadPoolExecutor(1) as pool:
        interruption = pool.submit(interrupt)
        outcome = run_campaign(made, url)
        interruption.result()
    server.before = None
    assert away.is_set()
    assert (outcome.done, outcome.failed) == (3, 0)
    assert begun(tmp_path).total() == 3
    run_campaign(made, tmp_path / "undisturbed")
    assert fingerprint(url) == fingerprint(tmp_path / "undisturbed")
    assert "Connect" in caplog.text or "SlowDown" in caplog.text


def test_a_server_that_stays_away(recipe, raw, tmp_path, server, url, monkeypatch):
    made = load_recipe(str(recipe), inputs=[f"{raw}/v11*.fits"], cluster="threads")
    monkeypatch.setattr(s3_client, "PATIENCE", 0.2)

    def end():
        wait_for(lambda: begun(tmp_path))
        server.stop()

    with ThreadPoolExecutor(1) as pool:
        ended = pool.submit(end)
        with pytest.raises(OutputError, match=r"has not answered for \d s .*start the same command again"):
            run_campaign(made, url)
        ended.result()
    with pytest.raises(OutputError, match="has not answered"):
        skysub.open_campaign(url)
    server.start()
    outcome = run_campaign(made, url)
    assert outcome.done + outcome.earlier == 3
    assert skysub.open_campaign(url).status().exit_code == 0


def test_a_second_run_on_an_output_in_use(raw, start, url):
    words = rf"{url} is in use by process {os.getpid()} on .* since"
    with place_at(url).locked(), pytest.raises(OutputInUseError, match=words):
        start(raw, url)
    with place_at(url).locked():
        pass


def test_the_lock_of_a_killed_process_is_taken_over_at_once(url):
    hold = "import sys, time; from skysub.campaign.store.address import place_at\n"
    hold += "with place_at(sys.argv[1]).locked(): print('held', flush=True); time.sleep(60)"
    process = subprocess.Popen([sys.executable, "-c", hold, url], stdout=subprocess.PIPE)
    process.stdout.readline()
    with pytest.raises(OutputInUseError), place_at(url).locked():
        pass
    process.kill()
    # a zombie until its parent looks
    with place_at(url).locked():
        pass
    process.communicate()


@pytest.fixture
def elsewhere(monkeypatch):
    """Locks look as if they were of other machines, and live quickly."""
    monkeypatch.setattr(owner, "machine", lambda: "")
    monkeypatch.setattr(owner, "BEAT", 0.3)
    monkeypatch.setattr(owner, "STALE", 2.0)


@pytest.mark.usefixtures("elsewhere")
def test_the_lock_of_another_machine(url):
    place = place_at(url)
    with place.locked() as hold:
        # alive: it is renewed
        with pytest.raises(OutputInUseError, match="is in use by process"), place.locked():
            pass
        assert not hold.lost
        content = place_at(f"{url}/lock").read()
    assert not place_at(f"{url}/lock").exists()
    # dead: of many that wait, one has it
    place_at(f"{url}/lock").put(content)
    refused = threading.Semaphore(0)

    def take(_):
        try:
            with place.locked() as hold:
                assert all(refused.acquire(timeout=20) for _ in range(3))
                return "held", hold.lost
        except OutputInUseError:
            refused.release()
            return "refused", ""

    began = time.monotonic()
    with ThreadPoolExecutor(4) as pool:
        ends = list(pool.map(take, range(4)))
    assert sorted(ends) == [("held", ""), *[("refused", "")] * 3]
    assert time.monotonic() - began > 1


@pytest.mark.usefixtures("elsewhere")
def test_a_lock_that_is_taken_away_ends_the_run(recipe, tmp_path, url):
    def take():
        wait_for(lambda: begun(tmp_path))
        place_at(f"{url}/lock").put(b'{"token": "other", "holder": "process 1 on moon"}')

    with ThreadPoolExecutor(1) as pool:
        taken = pool.submit(take)
        settings = ["cluster.workers=1"]
        with pytest.raises(OutputError, match=r"not held by this process any more, but by process 1 on moon"):
            run_campaign(load_recipe(str(recipe), cluster="threads", settings=settings), url)
        taken.result()
    assert 1 <= begun(tmp_path).total() < 6
    # it is the other's, and stays
    assert b"moon" in place_at(f"{url}/lock").read()


def test_a_server_without_conditional_writes(raw, start, server, url):
    server.deaf = True
    try:
        with pytest.raises(OutputError, match=r"its server overwrites an object although it was told not to"):
            start(raw, url)
    finally:
        server.deaf = False


def test_a_server_that_never_answered(raw, start, url, monkeypatch):
    monkeypatch.setattr(s3_client, "_FIRST_PATIENCE", 0.2)
    monkeypatch.setattr(s3_client._Server, "answered", False)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    s3_client.client.cache_clear()
    with pytest.raises(OutputError, match=r"http://127.0.0.1:9 has not answered.*AWS_ENDPOINT_URL"):
        start(raw, url)
