"""What goes into a report, how much of it, and where it ends up."""

import json
import os

import numpy as np
import pytest

import skysub
from skysub.cli import main
from skysub.errors import CampaignNotFoundError, OutputError
from skysub.report import views as views_module
from skysub.report import write as write_module
from skysub.report.large import visit_table
from skysub.report.views import BUDGET, edge_for, most_pictured, pictures_of, view_of, views_of
from skysub.report.write import write_report

from .conftest import SHAPE, make_visit_image, run_small


@pytest.fixture
def subtracted():
    visit_image = make_visit_image(1, 0)
    image, layer = skysub.subtract_background(
        visit_image.image,
        (visit_image.mask, visit_image.bits("BAD", "DETECTED")),
        skysub.BackgroundConfig(superpixel=16, order=1),
    )
    return visit_image, visit_image.replace(image=image), skysub.BackgroundList([layer])


def test_pictures_are_means_over_cells(subtracted):
    before, after, layers = subtracted
    made = pictures_of(after, layers, 32)
    # 128 columns in cells of 4; the model is taken at the cells' centres
    cells = before.image.astype(float).reshape(24, 4, 32, 4)
    good = (before.mask & before.bits("BAD") == 0).reshape(24, 4, 32, 4)
    with np.errstate(invalid="ignore"):
        expected = np.where(good, cells, 0).sum(axis=(1, 3)) / good.sum(axis=(1, 3))
    np.testing.assert_allclose(made["image"], expected, atol=0.15)
    assert np.isnan(made["image"]).sum() == np.isnan(expected).sum() > 0
    clean = (before.mask == 0).reshape(24, 4, 32, 4)
    rest = after.image.astype(float).reshape(24, 4, 32, 4)
    shown = clean.mean(axis=(1, 3)) >= 0.15
    means = np.where(clean, rest, 0).sum(axis=(1, 3))[shown] / clean.sum(axis=(1, 3))[shown]
    np.testing.assert_allclose(made["residual"][shown], means, rtol=1e-5, atol=1e-4)
    assert np.isnan(made["residual"][~shown]).all()
    assert made["sources"].mean() == pytest.approx(30 * 40 / (96 * 128))
    assert made["defects"].mean() == pytest.approx(20 * 30 / (96 * 128))
    np.testing.assert_allclose(made["model"], layers.evaluate()[1::4, 1::4], atol=0.3)
    assert made["superpixels"].shape == made["used"].shape == (6, 8)
    assert np.isnan(made["superpixels"][~layers[0].usable]).all()


def test_layers_add_up_under_the_superpixels(subtracted):
    before, after, layers = subtracted
    again, layer = skysub.subtract_background(
        after.image, (before.mask, before.bits("BAD")), skysub.BackgroundConfig(superpixel=16)
    )
    made = pictures_of(after.replace(image=again), layers + layer, 512)
    both = np.isfinite(made["superpixels"])
    assert abs(np.mean(made["superpixels"][both]) - 904) < 5
    assert made["image"].shape == SHAPE


@pytest.mark.parametrize("detectors", [1, 8, 189, 1000, 5000, most_pictured()])
def test_pictures_of_any_campaign_stay_within_the_budget(detectors, subtracted):
    _, after, _ = subtracted
    edge = edge_for(detectors)
    large = np.zeros((edge * 3 // 2, edge * 2), np.float32)
    mask = np.zeros(large.shape, np.int32)
    layer = skysub.fit_background(
        large + np.arange(large.shape[1], dtype=np.float32),
        None,
        skysub.BackgroundConfig(superpixel=max(2, edge // 64), min_good_pixels=1),
    )
    made = pictures_of(
        after.replace(image=large, mask=mask, variance=None), skysub.BackgroundList([layer]), edge
    )
    assert max(made["image"].shape) == edge
    # the mask's two shares make one picture; one map of errors, one of noise, one more
    sizes = {name: array.size for name, array in made.items() if name != "sources"}
    assert (sum(sizes.values()) + 3 * sizes["used"]) * detectors <= BUDGET


def test_a_thousand_detectors_are_still_worth_a_look():
    assert edge_for(1000) >= 64
    assert edge_for(8) == 512


def test_detectors_come_in_order_and_progress_is_told(out):
    campaign = skysub.open_campaign(out)
    units = [(visit, detector) for visit, detector, _ in campaign.markers()]
    told = []
    seen = list(views_of(campaign, units, 64, lambda done, total: told.append((done, total))))
    assert [(view.visit, view.detector) for view in seen] == units
    assert told == [(i + 1, 11) for i in range(11)]


def test_a_detector_that_cannot_be_read_says_why(out, monkeypatch):
    campaign = skysub.open_campaign(out)

    def gone(*unit):
        raise skysub.errors.InputChangedError(f"{unit} is gone")

    monkeypatch.setattr(campaign, "visit_image", gone)
    view = view_of(campaign, 11, 0, 64)
    assert (view.pictures, view.trouble) == ({}, "(11, 0) is gone")


def test_pixels_made_on_demand_have_pictures_and_lost_inputs_are_told(raw, tmp_path):
    inputs = tmp_path / "raw"
    inputs.mkdir()
    for detector in (0, 1):
        name = f"v11_d{detector}.fits"
        (inputs / name).write_bytes((raw / name).read_bytes())
    run_small(inputs, tmp_path / "out", "products.pixels=on_demand")
    (inputs / "v11_d1.fits").unlink()
    text = write_report(tmp_path / "out").read_text()
    assert text.count('data-key="11-0" title') == 7
    assert text.count('data-key="11-1" title') == 0
    assert "detector 1 has no pictures" in text


def test_the_outlier_is_named(report):
    text = report.read_text()
    table = text[text.index('id="outlier-table"') :]
    assert table.index("visit 11 detector 2") < table.index("</table>")


def test_a_script_in_a_header_is_escaped(report):
    text = report.read_text()
    assert "<script>document.title" not in text
    assert text.count("<script>") == 1


def test_the_verb_writes_where_it_is_told_and_prints_it(out, tmp_path, capsys):
    path = tmp_path / "sub.html"
    assert main(["report", str(out), "--output", str(path)]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == str(path)
    assert path.read_text().startswith("<!DOCTYPE html>")
    assert os.listdir(tmp_path) == ["sub.html"]


def test_no_campaign(tmp_path, capsys):
    with pytest.raises(CampaignNotFoundError, match=str(tmp_path)):
        write_report(tmp_path)
    assert main(["report", str(tmp_path)]) == 1
    assert "no campaign" in capsys.readouterr().err


def test_an_output_that_cannot_be_written(out, tmp_path):
    with pytest.raises(OutputError, match=r"none/report\.html"):
        write_report(out, tmp_path / "none" / "report.html")


def test_a_report_is_a_local_file(out, capsys):
    assert main(["report", str(out), "--output", "s3://night/report.html"]) == 1
    said = capsys.readouterr().err
    assert "s3://night/report.html cannot be written: a report is written to a local file" in said


def test_beyond_the_budget_visits_in_trouble_have_pictures_first(out, tmp_path, monkeypatch):
    monkeypatch.setattr(views_module, "BUDGET", 3 * views_module._elements(16))
    text = write_report(out, tmp_path / "few.html").read_text()
    # visit 12, of which a detector failed
    assert 'id="v-12"' in text
    assert 'id="v-11"' not in text
    assert "only 1 visits have pictures" in text
    assert text.count('<tr data-key="11-') >= 3


def test_settings_are_part_of_the_page(report, out):
    record = skysub.open_campaign(out).run_record()
    assert json.dumps(record["steps"][0]["settings"]["fit"]["superpixel"]) in report.read_text()
    assert write_module.__version__ in report.read_text()


def test_a_large_campaign_has_an_index_and_pages(out, tmp_path, monkeypatch):
    monkeypatch.setattr(write_module, "LARGE", 11)
    monkeypatch.setattr(write_module, "PAGES", 2)
    path = write_report(out, tmp_path / "night.html")
    text = path.read_text()
    # the visit with a failure first, then the first one
    assert sorted(page.name for page in (tmp_path / "night").iterdir()) == ["11.html", "12.html"]
    assert '<a href="night/12.html">12</a>' in text
    assert "night/13.html" not in text
    assert text.count("<tr>") == 1 + 4
    assert "visit 12 detector 1" in text
    assert "data:image/png" not in text
    page = (tmp_path / "night/12.html").read_text()
    assert 'id="v-12"' in page
    assert 'id="v-11"' not in page
    assert "2 units done, 1 failed" in page
    # pages of others when they are asked for
    assert main(["report", str(out), "--output", str(tmp_path / "night.html"), "--visit", "13"]) == 0
    assert '<a href="night/13.html">13</a>' in path.read_text()
    assert '<a href="night/12.html">12</a>' in path.read_text()


def test_some_visits_of_a_small_campaign(out, tmp_path):
    text = write_report(out, tmp_path / "part.html", visits=[13, 14]).read_text()
    assert 'id="v-13"' in text
    assert 'id="v-14"' in text
    assert 'id="v-11"' not in text
    assert "Failures</h2>" not in text


def test_medians_of_the_index_are_those_of_the_visit(out):
    campaign = skysub.open_campaign(out)
    columns, rows = visit_table(campaign, campaign.status(), {})
    sky = [column.label for column in columns].index("Sky level")
    figures = campaign.figures()
    for row in rows:
        own = figures["sky"][figures["visit"] == int(row.cells[0].words)]
        assert float(row.cells[sky].sort) == pytest.approx(np.median(own), rel=1e-8)
