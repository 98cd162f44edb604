"""A chain over detectors, visits and detectors again: order, failures, settings, other inputs."""

import hashlib
import json
import os
import random
import signal
import time
from collections import Counter

import numpy as np
import pytest

import skysub
from skysub.campaign.plan import make_plan
from skysub.campaign.recipe import load_recipe
from skysub.campaign.run import run_campaign
from skysub.campaign.store.local import LocalPath
from skysub.errors import NotDoneError, RecipeError

FIRST, SECOND, THIRD = (f"chain_steps:{name}" for name in ("first", "second", "third"))
PRODUCTS = ("flat", "level", "stars", "sky", "offset", "final", "source", "shape")


@pytest.fixture
def chain(raw, tmp_path, steps):  # noqa: ARG001 - steps makes them importable
    """Run the chain, on some files of the folder, with some settings: returns what it came to."""
    path = tmp_path / "chain.yaml"
    path.write_text(
        f"inputs: '{raw}/*.fits'\nsteps:\n"
        + "".join(f"  '{name}': {{ledger: {tmp_path / 'ledger'}}}\n" for name in (FIRST, SECOND, THIRD))
    )

    def run(*settings, inputs="*.fits", output="out", **options):
        given = [each.replace("first.", f"{FIRST}.").replace("second.", f"{SECOND}.") for each in settings]
        given = [f"steps.{each.replace('third.', f'{THIRD}.')}" for each in given]
        recipe = load_recipe(str(path), inputs=[f"{raw}/{inputs}"], cluster="threads", settings=given)
        if options.pop("plan", False):
            return make_plan(recipe, tmp_path / output, **options)
        return run_campaign(recipe, tmp_path / output, **options)

    run.path = path
    return run


@pytest.fixture
def begun(tmp_path):
    """Units begun since the last look."""

    def look():
        ledger = tmp_path / "ledger"
        text = ledger.read_text() if ledger.exists() else ""
        ledger.unlink(missing_ok=True)
        return Counter(text.splitlines())

    return look


def digest(output):
    """What a campaign has of each product, by product, visit and detector."""
    campaign = skysub.open_campaign(output)
    made = {}
    for name in PRODUCTS:
        for number in campaign.visits["visit"]:
            visit = int(number)
            along = campaign.detectors(visit) if campaign.belongs_to(name) == "detector" else [None]
            for detector in along:
                try:
                    value = campaign.product(name, visit, detector)
                except NotDoneError:
                    continue
                made[name, visit, detector] = hashlib.sha256(_bytes(value)).hexdigest()
    return made


def _bytes(value):
    if isinstance(value, np.ndarray):
        return value.tobytes()
    if isinstance(value, skysub.VisitImage):
        return value.image.tobytes() + value.mask.tobytes() + value.variance.tobytes()
    if hasattr(value, "colnames"):
        return json.dumps([[name, value[name].tolist()] for name in value.colnames]).encode()
    return value.moments.tobytes() + value.name.encode()


def units(name, visits=(11, 12), detectors=(0, 1, 2)):
    if name == "second":
        return Counter(f"second {visit}" for visit in visits)
    return Counter(f"{name} {visit} {detector}" for visit in visits for detector in detectors)


EVERYTHING = units("first") + units("second") + units("third")


def test_everything_is_made_once_and_can_be_read(chain, raw, tmp_path, begun):
    outcome = chain()
    assert (outcome.done, outcome.failed, outcome.waiting, outcome.left) == (14, 0, 0, 0)
    assert begun() == EVERYTHING
    campaign = skysub.open_campaign(tmp_path / "out")
    assert campaign.products == PRODUCTS
    assert [campaign.kind(name) for name in ("flat", "level", "source", "shape")] == [
        "image",
        "grid",
        "table",
        "object",
    ]
    given = {path.name: skysub.read_visit_image(path) for path in raw.glob("v11*")}
    levels = np.array([np.median(given[f"v11_d{detector}.fits"].image) for detector in (0, 1, 2)])
    sky = campaign.product("sky", 11)
    assert sky.tolist() == [levels.mean(), 3]
    np.testing.assert_array_equal(campaign.product("offset", 11, 2), [levels[2] - levels.mean()])
    image = given["v11_d1.fits"].image
    expected = image - levels[1] + np.float32(levels.mean()) + np.float32(2 * (levels[1] - levels.mean()))
    np.testing.assert_array_equal(campaign.visit_image(11, 1).image, expected)
    np.testing.assert_array_equal(campaign.visit_image(11, 1, "flat").image, image - levels[1])
    assert campaign.product("shape", 12, 0).name == "12"
    np.testing.assert_array_equal(campaign.map("level", 11, 0), levels[:1])
    sources = campaign.table("source")
    assert sources.colnames == ["visit", "detector", "flux", "position"]
    assert sources["visit"].tolist() == [11] * 9 + [12] * 9
    assert sources["detector"].tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2] * 2
    assert sources["position"].shape == (18, 2)
    np.testing.assert_array_equal(campaign.table("source", 11, 1)["flux"], expected[range(3), range(3)])
    # tables without rows are tables; columns can be chosen
    assert campaign.table("stars", columns=["label"])["label"].tolist() == ["s0", "s0", "s1"] * 2
    assert len(campaign.product("stars", 11, 0)) == 0
    figures = campaign.figures(SECOND)
    assert figures["detectors"].tolist() == [3, 3]
    assert campaign.figures(FIRST, only=["level"]).colnames == [
        *("visit", "detector", "band", "run", "level", "seconds", "flags"),
    ]
    assert campaign.figures(FIRST)["word"].tolist() == ["d0", "d1", "d2"] * 2
    status = campaign.status()
    assert [row["units"] for row in status.by_step] == [6, 2, 6]
    assert status.counts == {"done": 14, "failed": 0, "waiting": 0, "left": 0, "unreadable": 0}
    assert chain().run == ""
    assert not begun()


def test_a_changed_second_step_redoes_it_and_what_follows(chain, tmp_path, begun):
    chain()
    begun()
    before = digest(tmp_path / "out")
    plan = chain("second.factor=2", plan=True)
    assert [(step.left, step.done) for step in plan.steps] == [(0, 6), (2, 0), (6, 0)]
    outcome = chain("second.factor=2")
    assert (outcome.run, outcome.done, outcome.earlier) == ("0002", 8, 6)
    assert begun() == units("second") + units("third")
    after = digest(tmp_path / "out")
    changed = {
        name for name, _, _ in before if any(before[key] != after[key] for key in before if key[0] == name)
    }
    assert changed == {"sky", "offset", "final", "source", "shape"}
    # back again: earlier results count, nothing is computed
    assert chain().done == 0
    assert not begun()
    assert digest(tmp_path / "out") == before


def test_a_changed_input_redoes_the_visit_it_belongs_to(chain, raw, tmp_path, begun, make_visit):
    chain()
    begun()
    before = digest(tmp_path / "out")
    make_visit(raw / "v12_d1.fits", 12, 1, level=500.0)
    chain()
    # the sky of the visit rests on all of its detectors
    assert begun() == Counter({"first 12 1": 1}) + units("second", [12]) + units("third", [12])
    after = digest(tmp_path / "out")
    assert all(before[key] == after[key] for key in before if key[1] == 11)
    assert all(before[key] != after[key] for key in before if key[0] == "final" and key[1] == 12)
    assert before["flat", 12, 0] == after["flat", 12, 0]


def test_a_detector_that_fails_is_borne_and_named_downstream(chain, tmp_path, begun):
    moody = tmp_path / "moody"
    moody.touch()
    bad = "first.bad=[1]", f"first.moody={moody}", "second.missing=1"
    outcome = chain(*bad)
    assert (outcome.done, outcome.failed, outcome.waiting, outcome.left) == (10, 2, 2, 0)
    campaign = skysub.open_campaign(tmp_path / "out")
    assert campaign.product("sky", 11)[1] == 2
    assert campaign.marker(11, None, SECOND)["flags"] == {"detectors_missing": "1"}
    assert campaign.marker(11, None, SECOND)["missing"] == [1]
    status = campaign.status()
    assert status.exit_code == 1
    assert status.counts == {"done": 10, "failed": 2, "waiting": 2, "left": 0, "unreadable": 0}
    assert [(each.step, each.visit, each.detector) for each in status.failures] == [
        (FIRST, 11, 1),
        (FIRST, 12, 1),
    ]
    with pytest.raises(
        NotDoneError, match=rf"11 detector 1, {THIRD}, is waiting for {FIRST} of visit 11 detector 1"
    ):
        campaign.product("final", 11, 1)
    with pytest.raises(NotDoneError, match="visit 11 detector 1 has no offset: its step left it out"):
        campaign.product("offset", 11, 1)
    begun()
    # it is tried again at each start, and what does without it stands
    outcome = chain(*bad)
    assert (outcome.run, outcome.done, outcome.failed, outcome.waiting) == ("0001", 0, 2, 2)
    assert begun() == units("first", detectors=[1])
    # once it is there, what did without it is done with it
    moody.unlink()
    outcome = chain(*bad)
    assert (outcome.done, outcome.failed, outcome.waiting) == (10, 0, 0)
    assert begun() == units("first", detectors=[1]) + units("second") + units("third")
    chain(output="undisturbed")
    assert digest(tmp_path / "out") == digest(tmp_path / "undisturbed")
    assert skysub.open_campaign(tmp_path / "out").status().exit_code == 0


def test_a_detector_that_is_not_borne(chain, tmp_path):
    moody = tmp_path / "moody"
    moody.touch()
    bad = "first.bad=[1]", f"first.moody={moody}"
    outcome = chain(*bad)
    assert (outcome.done, outcome.failed, outcome.waiting, outcome.left) == (4, 2, 8, 0)
    status = skysub.open_campaign(tmp_path / "out").status()
    assert status.counts == {"done": 4, "failed": 2, "waiting": 8, "left": 0, "unreadable": 0}
    moody.unlink()
    assert chain(*bad).done == 10


def test_a_visit_that_raises(chain, tmp_path, begun, capsys):
    from skysub.cli import main

    moody = tmp_path / "moody"
    moody.touch()
    outcome = chain("second.bad=[12]", f"second.moody={moody}")
    assert (outcome.done, outcome.failed, outcome.waiting) == (10, 1, 3)
    assert main(["status", str(tmp_path / "out")]) == 1
    said = capsys.readouterr().out
    assert f"visit 12, {SECOND}: ValueError: second is <b>moody</b>" in said
    assert "10 of 14 units done, 1 failed, 3 waiting for these" in said
    (failure,) = skysub.open_campaign(tmp_path / "out").status().failures
    assert (failure.visit, failure.detector, failure.step) == (12, None, SECOND)
    assert "chain_steps.py" in failure.traceback
    assert main(["report", str(tmp_path / "out")]) == 0
    page = (tmp_path / "out/report.html").read_text()
    assert f"visit 12, {SECOND}" in page
    assert "second is &lt;b&gt;moody" in page
    begun()
    moody.unlink()
    assert chain("second.bad=[12]", f"second.moody={moody}").done == 4
    assert begun() == units("second", [12]) + units("third", [12])


def test_results_that_cannot_be_put_together(chain, tmp_path, monkeypatch, begun):
    """What ends a detector step's visit is a unit like others: exit 1, in status, tried again."""
    from skysub.campaign.products.table import Table

    gather = Table.gather

    def broken(self, entries, storing, *, complete):
        if self.name == "source" and next(iter(entries.values())).slot.visit == 12:
            raise RuntimeError("no such luck")
        return gather(self, entries, storing, complete=complete)

    monkeypatch.setattr(Table, "gather", broken)
    outcome = chain()
    assert (outcome.done, outcome.failed, outcome.left) == (14, 1, 0)
    status = skysub.open_campaign(tmp_path / "out").status()
    assert status.exit_code == 1
    assert status.counts["done"], status.counts["failed"] == (14, 1)
    (failure,) = status.failures
    assert (failure.visit, failure.detector, failure.message) == (12, None, "RuntimeError: no such luck")
    # nothing is lost meanwhile
    assert len(skysub.open_campaign(tmp_path / "out").table("source")) == 18
    assert chain().failed == 1
    monkeypatch.undo()
    begun()
    plan = chain(plan=True)
    assert (plan.left, len(plan.closings)) == (0, 1)
    assert chain().failed == 0
    assert not begun()
    assert skysub.open_campaign(tmp_path / "out").status().exit_code == 0
    assert not (tmp_path / "out/runs/0001/units/chain_steps.third/12").exists()


def test_narrowed_and_widened_inputs(chain, raw, tmp_path, begun, make_visit):
    for visit in (13, 14):
        for detector in (0, 1, 2):
            make_visit(raw / f"v{visit}_d{detector}.fits", visit, detector)
    # a run that was stopped: visits 13 and 14 of it are left
    chain()
    for visit in (13, 14):
        for step in (FIRST, SECOND, THIRD):
            (tmp_path / f"out/runs/0001/units/{step.replace(':', '.')}/{visit}.visit").unlink()
    begun()
    plan = chain(inputs="v13*.fits", plan=True)
    assert (plan.left, plan.resumes) == (7, True)
    assert chain(inputs="v13*.fits").done == 7
    assert begun() == units("first", [13]) + units("second", [13]) + units("third", [13])
    # fewer detectors of a visit make another sky
    assert chain(inputs="v11_d[01].fits").done == 3
    assert begun() == units("second", [11]) + units("third", [11], [0, 1])
    assert skysub.open_campaign(tmp_path / "out").product("sky", 11)[1] == 2
    # and all of them the earlier one again
    assert chain().done == 7
    assert begun() == units("first", [14]) + units("second", [14]) + units("third", [14])
    campaign = skysub.open_campaign(tmp_path / "out")
    assert campaign.product("sky", 11)[1] == 3
    chain(output="undisturbed")
    assert digest(tmp_path / "out") == digest(tmp_path / "undisturbed")


def test_steps_and_visits_alone(chain, tmp_path, begun):
    outcome = chain(steps=[SECOND])
    assert outcome.run == ""
    assert not begun()
    plan = chain(steps=[SECOND], plan=True)
    assert [step.blocked for step in plan.steps] == [0, 2, 0]
    assert chain(steps=[FIRST], visits=[11]).done == 3
    assert begun() == units("first", [11])
    assert skysub.open_campaign(tmp_path / "out").status().exit_code == 0
    assert chain(steps=[SECOND]).done == 1
    assert begun() == units("second", [11])
    assert chain().done == 10
    assert begun() == EVERYTHING - units("first", [11]) - units("second", [11])
    chain(output="undisturbed")
    assert digest(tmp_path / "out") == digest(tmp_path / "undisturbed")
    with pytest.raises(RecipeError, match=f"no step 'fourth'; its steps are {FIRST}"):
        chain(steps=["fourth"])


def test_verify_looks_at_every_kind(chain, tmp_path, begun):
    chain()
    begun()
    before = digest(tmp_path / "out")
    run = tmp_path / "out/runs/0001"
    table = run / "tables/source/visit=11.parquet"
    table.write_bytes(table.read_bytes()[:-7] + b"damaged")
    shard = run / "images.zarr/flat/image/c.1.2.0.0"
    shard.write_bytes(shard.read_bytes()[:-1] + b"!")
    assert chain().done == 0
    assert chain(verify=True).done == 4
    assert begun() == Counter({"first 12 2": 1}) + units("third", [11])
    assert digest(tmp_path / "out") == before
    assert chain(verify=True).done == 0


def test_pixels_on_demand_in_a_chain(chain, tmp_path):
    chain()
    path = chain.path
    path.write_text(path.read_text() + "products: {pixels: on_demand}\n")
    chain(output="lean")
    stored, lean = (skysub.open_campaign(tmp_path / name) for name in ("out", "lean"))
    for visit, detector in stored.units:
        for name in ("flat", "final"):
            a, b = (each.visit_image(visit, detector, name) for each in (stored, lean))
            np.testing.assert_array_equal(a.image, b.image)
            np.testing.assert_array_equal(a.variance, b.variance)
    assert not (tmp_path / "lean/runs/0001/images.zarr/final/image").exists()


def test_few_files(chain, tmp_path):
    """A finished visit has one file per plane and detector, and few beside."""
    chain()
    run = tmp_path / "out/runs/0001"
    for name in ("flat", "final"):
        assert len(list((run / f"images.zarr/{name}/image").glob("c*"))) == 6
    assert sorted(path.name for path in (run / "units/chain_steps.first").iterdir()) == [
        "11.visit",
        "12.visit",
    ]
    assert sorted(path.name for path in (run / "tables/source").iterdir()) == [
        "visit=11.parquet",
        "visit=12.parquet",
    ]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "{background: {}, calibrate_image: {}}",
            "background and calibrate_image both make 'preliminary_visit",
        ),
        ("{'chain_steps:second': {}}", "second needs 'level', which no step before it makes"),
        ("{'chain_steps:third': {}, 'chain_steps:first': {}}", "third needs 'flat', which no step before"),
    ],
)
@pytest.mark.usefixtures("steps")
def test_steps_that_do_not_fit_together(raw, tmp_path, text, words):
    path = tmp_path / "bad.yaml"
    path.write_text(f"inputs: '{raw}/*.fits'\nsteps: {text}\n")
    with pytest.raises(RecipeError, match=words):
        run_campaign(str(path), tmp_path / "out")


def test_a_client_of_ones_own(chain, tmp_path):
    from distributed import Client, LocalCluster

    with (
        LocalCluster(n_workers=1, threads_per_worker=2, processes=False, dashboard_address=":0") as cluster,
        Client(cluster) as client,
    ):
        outcome = skysub.run_campaign(str(chain.path), tmp_path / "out", client=client)
        assert outcome.done == 14
        assert client.submit(sum, [1, 2]).result() == 3


def torture(command, chain, tmp_path, ledger, *, kills, seed):
    """Kill everything with -9, again and again: readers see whole things, and the end is as undisturbed."""
    slow = ["first.seconds=0.05", "second.seconds=0.05", "third.seconds=0.05"]
    chain(*slow, output="undisturbed")
    ledger()
    reference = digest(tmp_path / "undisturbed")
    rng = random.Random(seed)
    settings = [part for each in slow for part in ("--set", f"steps.chain_steps:{each}")]
    arguments = ["run", chain.path, "--output", tmp_path / "out", "--set", "cluster.workers=2", *settings]
    total = Counter()
    process = command(*arguments)
    for _ in range(kills):
        patience = time.monotonic() + 30
        while not (seen := ledger()) and process.poll() is None and time.monotonic() < patience:
            time.sleep(0.01)
        total += seen
        time.sleep(rng.random() * 0.6)
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate(timeout=60)
        if (tmp_path / "out/runs/0001/run.json").exists():
            assert digest(tmp_path / "out").items() <= reference.items()
        process = command(*arguments)
    text, _ = process.communicate(timeout=180)
    assert process.returncode == 0, text
    assert digest(tmp_path / "out") == reference
    total += ledger()
    # no more than what was in flight at a kill is begun again
    assert sum(total.values()) <= len(reference_units(reference)) + 2 * kills
    leftovers = [path for path in (tmp_path / "out").rglob("*") if path.name.endswith(".partial")]
    assert not leftovers


def reference_units(reference):
    return [key for key in reference if key[0] in {"level", "sky", "final"}]


def test_killed_at_random_moments(command, chain, tmp_path, begun):
    torture(command, chain, tmp_path, begun, kills=3, seed=4)


@pytest.mark.long
def test_killed_twenty_times(command, chain, raw, tmp_path, begun, make_visit):
    for visit in range(20, 40):
        for detector in (0, 1, 2):
            make_visit(raw / f"v{visit}_d{detector}.fits", visit, detector)
    torture(command, chain, tmp_path, begun, kills=20, seed=5)


def test_files_that_did_not_change_are_not_opened_again(chain, raw, make_visit, monkeypatch):
    from skysub.visit.fits import read

    opened = []
    headers = read.read_visit_headers

    def noted(path, *arguments, **options):
        opened.append(LocalPath(path).name)
        return headers(path, *arguments, **options)

    monkeypatch.setattr(read, "read_visit_headers", noted)
    chain()
    assert len(opened) == 6
    opened.clear()
    make_visit(raw / "v12_d1.fits", 12, 1, level=500.0)
    make_visit(raw / "v13_d1.fits", 13, 1)
    chain()
    # twice: for the plan, and as they are read
    assert set(opened) == {"v12_d1.fits", "v13_d1.fits"}
