"""A schedule: starts that do only what is new, exclude each other, and tell each failure once."""

import json
import subprocess
import sys
import threading
import time
import urllib.request
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

import skysub
from skysub.campaign.alerts import Alerts
from skysub.campaign.metrics import Snapshot, exposition, published
from skysub.cli import IN_USE, main
from skysub.errors import OutputError, RecipeError

LEARN = "import json, sys; file = open(sys.argv[1], 'a'); print(json.dumps(json.load(sys.stdin)), file=file)"


@pytest.fixture
def scheduled(raw, tmp_path, steps):  # noqa: ARG001 - it makes the steps known
    """Arguments of one start; its failures become lines of a file."""
    recipe = tmp_path / "nightly.yaml"
    recipe.write_text(
        f"inputs: {raw}/*.fits\n"
        f"steps:\n  campaign_steps:tampered: {{bad: [2], ledger: {tmp_path}/ledger.txt, "
        "background: {fit: {superpixel: 32}}}\n"
        "cluster: {profile: threads, workers: 2}\n"
    )
    program = tmp_path / "learn.py"
    program.write_text(LEARN)
    told = f"{sys.executable} {program} {tmp_path}/alerts.txt"
    return [str(recipe), "--output", str(tmp_path / "out"), "--on-failure", told]


def begun(tmp_path):
    """Units that were begun since the last look."""
    ledger = tmp_path / "ledger.txt"
    lines = sorted(ledger.read_text().split("\n"))[1:] if ledger.exists() else []
    ledger.unlink(missing_ok=True)
    return lines


def alerts(tmp_path):
    path = tmp_path / "alerts.txt"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


@pytest.mark.long
def test_a_schedule_fires_three_times_while_visits_arrive(scheduled, raw, tmp_path, make_visit, capsys):
    """By a real clock: a firing every few seconds, each a process of its own."""
    period, firings = 6.0, []
    start = time.monotonic()

    def fire():
        # nobody waits for the one before
        firings.append(
            subprocess.Popen(
                [sys.executable, "-m", "skysub", "run", *scheduled],
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
        )

    for number in range(3):
        time.sleep(max(0.0, start + number * period - time.monotonic()))
        if number == 1:
            # a visit arrives, an earlier input changes
            firings[-1].wait(400)
            assert begun(tmp_path) == sorted(f"{v} {d}" for v in (11, 12) for d in (0, 1, 2))
            make_visit(raw / "v13_d0.fits", 13, 0)
            make_visit(raw / "v11_d1.fits", 11, 1, level=500.0)
        if number == 2:
            firings[-1].wait(400)
            assert begun(tmp_path) == ["11 1", "11 2", "12 2", "13 0"]
            make_visit(raw / "v14_d1.fits", 14, 1)
        fire()
    said = [each.communicate(timeout=400)[0] for each in firings]
    assert begun(tmp_path) == ["11 2", "12 2", "14 1"]
    assert [each.returncode for each in firings] == [1, 1, 1], said
    # the two units that fail at each start were told once
    (alert,) = alerts(tmp_path)
    assert (alert["new"], alert["failed"]) == (2, 2)
    assert {(each["visit"], each["detector"]) for each in alert["failures"]} == {(11, 2), (12, 2)}
    assert "is <b>odd</b>" in alert["failures"][0]["message"]
    assert skysub.open_campaign(tmp_path / "out").status().counts["done"] == 6
    assert main(["status", str(tmp_path / "out"), "--metrics"]) == 1
    assert 'skysub_campaign_units{output="' in (text := capsys.readouterr().out)
    assert 'state="failed"} 2' in text


def test_starts_that_overlap_exclude_each_other(scheduled, tmp_path, capfd):
    slow = [*scheduled, "--set", "steps.campaign_steps:tampered.seconds=0.7"]
    first = subprocess.Popen([sys.executable, "-m", "skysub", "run", *slow], stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 300
    while not (tmp_path / "ledger.txt").exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert main(["run", *slow]) == IN_USE == 75
    assert "is in use by process" in capfd.readouterr().err
    # and that is no failure that anybody is told of
    assert not alerts(tmp_path)
    assert first.wait(400) == 1
    assert len(begun(tmp_path)) == 6


def test_what_nobody_took_is_told_again_and_a_mended_unit_anew(scheduled, tmp_path):
    run = ["run", *scheduled]
    deaf = Alerts("/nowhere/command")
    main([*run[:-1], "/nowhere/command"])
    assert deaf.tell(tmp_path / "out") == 2
    main(run)
    main(run)
    assert [each["new"] for each in alerts(tmp_path)] == [2]
    mended = [*run, "--set", "steps.campaign_steps:tampered.bad=[]"]
    assert main(mended) == 0
    assert main(run) == 1
    assert [each["new"] for each in alerts(tmp_path)] == [2, 2]
    assert main(["run", *scheduled, "--set", "cluster.profil=x"]) == 1
    assert alerts(tmp_path)[-1]["error"].startswith("unknown key 'profil' in cluster")


def test_retry_does_what_failed_and_nothing_new(scheduled, raw, tmp_path, make_visit, capsys):
    main(["run", *scheduled])
    begun(tmp_path)
    make_visit(raw / "v13_d0.fits", 13, 0)
    assert main(["retry", *scheduled, "--failed", "--memory", "900 MiB"]) == 1
    assert begun(tmp_path) == ["11 2", "12 2"]
    assert main(["retry", *scheduled, "--set", "steps.campaign_steps:tampered.bad=[]"]) == 0
    capsys.readouterr()
    assert main(["retry", *scheduled]) == 0
    assert capsys.readouterr().out == f"nothing failed in {tmp_path / 'out'}\n"
    (raw / "bad.fits").write_bytes(b"no FITS at all")
    main(["run", *scheduled, "--set", "steps.campaign_steps:tampered.bad=[]"])
    capsys.readouterr()
    assert main(["retry", *scheduled]) == 0
    assert "; 1 inputs could not be read, which `skysub run` looks at again" in capsys.readouterr().out


def test_a_webhook_is_given_json(scheduled):
    heard = []

    class Listener(BaseHTTPRequestHandler):
        def do_POST(self):
            heard.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_):
            pass

    with HTTPServer(("127.0.0.1", 0), Listener) as server:
        serving = threading.Thread(target=server.serve_forever)
        serving.start()
        try:
            main(["run", *scheduled[:3], "--webhook", f"http://127.0.0.1:{server.server_port}/hook"])
        finally:
            server.shutdown()
            serving.join()
    assert [each["new"] for each in heard] == [2]
    with pytest.raises(RecipeError, match="--webhook needs an address of http"):
        Alerts(webhook="file:///etc/passwd")


def test_metrics_of_a_run(scheduled, tmp_path):
    file = tmp_path / "textfile/skysub.prom"
    main(["run", *scheduled, "--metrics", str(file)])
    text = file.read_text()
    out = tmp_path / "out"
    assert f'skysub_run_units{{output="{out}",state="done"}} 4' in text
    assert f'skysub_run_units{{output="{out}",state="failed"}} 2' in text
    assert f'skysub_run_exit_code{{output="{out}"}} 1' in text
    assert "skysub_run_stage_seconds_total{" in text
    names = [line.split("{")[0] for line in text.splitlines() if not line.startswith("#")]
    # the format wants the lines of a name together, with its help and type once before them
    assert all(text.count(f"# TYPE {name} ") == 1 for name in names)
    assert [each.name for each in file.parent.iterdir()] == ["skysub.prom"]


def test_metrics_at_a_port_of_this_machine_alone():
    import socket

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with published(None, port) as publish:
        publish(Snapshot('a "quoted"\\path', done=3))
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
            assert answer.read().decode().startswith("# HELP skysub_run_units")
        with pytest.raises(OutputError, match="choose another port"), published(None, port):
            pass
    assert r'output="a \"quoted\"\\path",state="done"} 3' in exposition(Snapshot('a "quoted"\\path', done=3))
