"""Inputs, stores and neighbours that nobody vouches for: each costs itself and nothing else."""

import bz2
import dataclasses
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest

import skysub
from skysub.campaign.export import export_products
from skysub.campaign.plan import make_plan
from skysub.campaign.recipe import load_recipe
from skysub.campaign.run import run_campaign
from skysub.campaign.status import lines, read_status
from skysub.campaign.store.seals import sealed
from skysub.cli import main
from tests.visit.bombs import header, image_hdu

TERMINAL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]")


@pytest.fixture
def strangers(raw):
    """Files of all kinds among the good ones, and how many there are."""
    image = np.random.default_rng(1).normal(900, 30, (96, 128)).astype(np.float32)
    (raw / "float.fits").write_bytes(image_hdu(image, VISIT="13.0", DETECTOR="'0.'"))
    bad = {
        "bomb.fits.bz2": bz2.compress(image_hdu(image, VISIT=1) + bytes(2**20)),
        "bomb.fits": header(SIMPLE="T", BITPIX=8, NAXIS=999, **{f"NAXIS{i}": 2**40 for i in range(1, 1000)}),
        "groups.fits": image_hdu(image, VISIT=1, DETECTOR=0, GCOUNT=2) * 2,
        "half.fits": image_hdu(image, VISIT="1.5", DETECTOR=0),
        "\x1b[31m\x07\n.fits": b"no",
        os.fsdecode(b"latin-\xe9.fits"): b"no",
    }
    for name, content in bad.items():
        (raw / name).write_bytes(content)
    os.mkfifo(raw / "pipe.fits")
    return raw, len(bad) + 1


def test_each_strange_file_costs_itself_alone(strangers, tmp_path, start, command, capsys):
    raw, bad = strangers
    output = tmp_path / "out"
    outcome = start(raw, output, inputs="*fits*")
    assert (outcome.done, outcome.failed, outcome.unreadable) == (7, 0, bad)
    status = read_status(output)
    assert status.counts["unreadable"] == bad
    assert all("Error" not in failure.message for failure in status.failures)
    assert skysub.open_campaign(output).units[-1] == (13, 0)
    for arguments in (["status", output], ["status", output, "--json"], ["report", output]):
        process = command(*arguments, env={**os.environ, "PYTHONIOENCODING": "utf-8:strict"})
        said, _ = process.communicate(timeout=120)
        assert "Traceback" not in said
        assert not TERMINAL.search(said)
    page = (output / "report.html").read_text(encoding="utf-8")
    assert r"latin-\xe9.fits" in page
    assert not TERMINAL.search(page)
    log = next(output.glob("runs/*/run.log")).read_text(encoding="utf-8")
    assert r"\x1b[31m\x07\n.fits: " in log
    assert not TERMINAL.search(log)
    again = start(raw, output, inputs="*fits*")
    assert (again.done, again.earlier, again.unreadable) == (0, 7, bad)
    assert main(["plan", "background", "--inputs", f"{raw}/*fits*", "--output", str(output)]) == 1
    assert not TERMINAL.search(capsys.readouterr().out)


def test_what_a_reader_raises_that_is_not_ours_costs_that_file(raw, tmp_path, monkeypatch):
    from skysub.visit.fits import afw, read

    layout = afw.LAYOUT

    def odd(file, ingest):
        if "v11_d1" in file.path:
            raise ZeroDivisionError("by \x1b zero")
        return layout.headers(file, ingest)

    known = tuple(
        dataclasses.replace(each, headers=odd) if each is layout else each for each in read._LAYOUTS
    )
    monkeypatch.setattr(read, "_LAYOUTS", known)
    plan = make_plan(load_recipe("background", inputs=[f"{raw}/*.fits"]), tmp_path / "out")
    assert plan.left == 5
    (unreadable,) = plan.unreadable
    assert unreadable.reason == r"ZeroDivisionError: by \x1b zero"
    assert unreadable.path.endswith("v11_d1.fits")


def test_control_characters_of_a_table_reach_no_terminal_and_stop_no_export(
    raw,  # noqa: ARG001
    tmp_path,
    command,
):
    table = tmp_path / "table.csv"
    rows = [("v11_d0", "\x1b]0;x\x07é"), ("v11_d1", "r" * 99), ("v11_d2", "g")]
    table.write_text("path,band\n" + "".join(f"raw/{name}.fits,{band}\n" for name, band in rows))
    recipe, output = tmp_path / "recipe.yaml", tmp_path / "out"
    recipe.write_text(f"inputs: {{table: {table}}}\nsteps: {{background: {{fit: {{superpixel: 32}}}}}}\n")
    process = command("run", recipe, "--output", output, "--cluster", "threads")
    said, _ = process.communicate(timeout=120)
    assert "2 units done, 1 input unreadable" in said
    assert not TERMINAL.search(said)
    assert "\\x1b]0;x\\x07é" in "\n".join(lines(read_status(output)))
    exported = export_products(output, tmp_path / "fits")
    assert (exported.written, exported.missing) == (4, ())
    path = next((tmp_path / "fits").rglob("preliminary_visit_image_11_0.fits"))
    assert skysub.read_visit_image(path).band == "\\x1b]0;x\\x07?"


def test_an_export_goes_on_after_a_unit_that_cannot_be_written(raw, tmp_path, start, monkeypatch):
    output = tmp_path / "out"
    start(raw, output, inputs="v11*.fits")
    from skysub.campaign.campaign import Campaign

    whole = Campaign.visit_image

    def odd(self, visit, detector, product=None):
        found = whole(self, visit, detector, product)
        return found if detector != 1 else found.replace(psf=object())

    monkeypatch.setattr(Campaign, "visit_image", odd)
    exported = export_products(output, tmp_path / "fits")
    assert exported.written == 5
    (missing,) = exported.missing
    assert missing.startswith("visit 11 detector 1, preliminary_visit_image: ")
    assert "GaussianPsf or a MoffatPsf, not object" in missing


@pytest.mark.parametrize("cluster", ["local", "threads"])
def test_a_run_listens_on_this_machine_alone(raw, tmp_path, steps, command, cluster):  # noqa: ARG001
    recipe = tmp_path / "slow.yaml"
    recipe.write_text(f"inputs: '{raw}/*.fits'\nsteps: {{'campaign_steps:tampered': {{seconds: 0.4}}}}\n")
    process = command(
        "run", recipe, "--output", tmp_path / "out", "--cluster", cluster, "--set", "cluster.workers=1"
    )
    hosts, ports = set(), set()
    while process.poll() is None:
        try:
            here = psutil.Process(process.pid)
            for each in (here, *here.children(recursive=True)):
                for connection in each.net_connections(kind="inet"):
                    if connection.status == psutil.CONN_LISTEN:
                        hosts.add(connection.laddr.ip)
                        ports.add(connection.laddr.port)
        except psutil.Error:
            continue
        time.sleep(0.05)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 0, said
    assert len(ports) >= (4 if cluster == "local" else 2)
    assert hosts == {"127.0.0.1"}


EVIL = """
from pathlib import Path
Path({mark!r}).touch()
from skysub.campaign.steps import find_step
step = find_step("background")
"""


def _renamed(data):
    text = (b"{" + data[21:]).replace(b'"background"', b'"evils:step"')
    text = text.replace(b'"kind": "evils:step"', b'"kind": "background"')
    return sealed(text.rstrip(b"\n")) + text[len(text.rstrip(b"\n")) :]


def test_reading_imports_nothing_that_a_store_names(raw, tmp_path, start):
    output, mark = tmp_path / "out", tmp_path / "imported"
    start(raw, output, "products.pixels=on_demand", inputs="v11*.fits")
    (tmp_path / "evils.py").write_text(EVIL.format(mark=str(mark)))
    (run,) = output.glob("runs/*")
    (run / "units/background").rename(run / "units/evils.step")
    for path in run.rglob("*.json*"):
        if path.name != "zarr.json":
            # of the same length, under seals that are in order
            path.write_bytes(
                b"".join(map(_renamed, path.read_bytes().splitlines(keepends=True)))
                if path.name == "units.jsonl"
                else _renamed(path.read_bytes())
            )
    assert json.loads((run / "run.json").read_text())["steps"][0]["name"] == "evils:step"
    program = (
        "import sys, skysub\n"
        "from skysub.campaign.export import export_products\n"
        "from skysub.report.write import write_report\n"
        "campaign = skysub.open_campaign(sys.argv[1])\n"
        "pixels, background, *_ = campaign.products\n"
        "campaign.status(), campaign.figures(), campaign.visit_image(11, 0), campaign.mask(11, 1)\n"
        "campaign.background(background, 11, 2)\n"
        "export_products(sys.argv[1], sys.argv[2])\n"
        "write_report(sys.argv[1])\n"
        "print(pixels, background, 'evils' in sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, output, tmp_path / "fits"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{Path.cwd()}"},
    )
    assert done.stdout.split() == [
        "preliminary_visit_image",
        "preliminary_visit_image_background",
        "False",
    ], done.stderr
    assert not mark.exists()
    # nor does a run that finds such a store
    outcome = start(raw, output, "products.pixels=on_demand", inputs="*.fits")
    assert outcome.done
    assert not mark.exists()


def test_steps_that_are_not_imported_are_read_by_what_their_run_says_of_them(
    raw,
    tmp_path,
    steps,  # noqa: ARG001
    monkeypatch,
):
    chain = "{'chain_steps:first': {}, 'chain_steps:second': {}, 'chain_steps:third': {}}"
    recipe = tmp_path / "own.yaml"
    recipe.write_text(f"inputs: '{raw}/v11*.fits'\nsteps: {chain}\n")
    output = tmp_path / "out"
    assert run_campaign(load_recipe(str(recipe), cluster="threads"), output).done
    monkeypatch.delenv("PYTHONPATH")
    program = (
        "import sys, skysub\n"
        "campaign = skysub.open_campaign(sys.argv[1])\n"
        "print(*campaign.products)\n"
        "print(campaign.product('final', 11, 0).image.shape, len(campaign.product('source', 11, 1)))\n"
        "print(campaign.product('sky', 11)[1], 'chain_steps' in sys.modules)\n"
        "campaign.product('shape', 11, 1)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, output], capture_output=True, text=True, check=False, cwd=Path.cwd()
    )
    assert done.stdout.splitlines() == [
        "flat level stars sky offset final source shape",
        "(96, 128) 3",
        "3.0 False",
    ], done.stderr
    assert "Shape" in done.stderr.splitlines()[-1]


def test_too_few_open_files_are_said_at_once(raw, tmp_path):
    program = "from skysub.cli import main; raise SystemExit(main())"
    arguments = f"run background --inputs {raw}/*.fits --output {tmp_path / 'out'} --set cluster.workers=1"
    done = subprocess.run(
        ["bash", "-c", f"ulimit -n 24; exec {sys.executable} -c '{program}' {arguments}"],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 1
    assert "a process may open 24 files here (ulimit -n), 76 are needed" in done.stderr
    assert "Traceback" not in done.stderr
