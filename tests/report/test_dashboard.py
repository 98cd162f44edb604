"""The dashboard over real HTTP, and in Chromium, beside a campaign that goes on."""

import http.cookiejar
import json
import shutil
import time
import urllib.error
import urllib.request

import numpy as np
import pytest

import skysub
from skysub.errors import NotDoneError, OutputError
from skysub.report.dashboard.pixels import Window, limits_of, picture
from skysub.report.dashboard.server import start_dashboard
from tests.report.conftest import SCRIPT, make_visit_image, run_small
from tests.report.test_browser import run, until


@pytest.fixture(scope="module")
def dashboard(out):
    with start_dashboard(out, every=0.1) as started:
        yield started


class Reader:
    """Somebody who opened the address that was printed."""

    def __init__(self, dashboard):
        self.base = dashboard.url.partition("?")[0]
        jar = http.cookiejar.CookieJar()
        self.opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(jar))
        self.opener.open(dashboard.url).close()

    def get(self, path):
        with self.opener.open(self.base + path) as answer:
            return answer.read(), answer.headers

    def json(self, path):
        return json.loads(self.get(path)[0])

    def code(self, path):
        try:
            self.get(path)
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()
        return 200, ""


@pytest.fixture(scope="module")
def reader(dashboard):
    made = Reader(dashboard)
    end = time.monotonic() + 20
    while not made.json("status.json")["number"] or made.json("visits.json")["rows"][0]["medians"][0] == "–":
        assert time.monotonic() < end
        time.sleep(0.05)
    return made


def test_nothing_is_shown_without_the_token(dashboard):
    base = dashboard.url.partition("?")[0]
    for path in (
        "",
        "status.json",
        "visit-11",
        "dashboard.js",
        "pixels-11-0.png?layer=x",
        "?token=wrong",
        "no",
    ):
        with pytest.raises(urllib.error.HTTPError) as raised:
            urllib.request.urlopen(base + path)
        with raised.value as error:
            assert error.code == 403, path


def test_it_listens_on_this_machine_alone(dashboard):
    assert dashboard.url.startswith("http://127.0.0.1:")


def test_the_index_counts_what_is_done(reader):
    status = reader.json("status.json")
    assert status["counts"] == {"done": 11, "failed": 1, "waiting": 0, "left": 0, "unreadable": 0}
    assert status["verdict"]["grade"] == "bad"
    assert status["verdict"]["words"].startswith("1 unit failed.")
    assert status["failures_in_all"] == 1
    assert status["failures"].count("<article") == 1
    assert '<a href="detector-12-1">' in status["failures"]
    found = reader.json("visits.json")
    assert [row["visit"] for row in found["rows"]] == [14, 13, 12, 11]
    assert [row["failed"] for row in found["rows"]] == [0, 0, 1, 0]
    assert [row["visit"] for row in reader.json("visits.json?wanted=failed")["rows"]] == [12]
    assert [row["visit"] for row in reader.json("visits.json?wanted=r%2013")["rows"]] == []
    assert [row["visit"] for row in reader.json("visits.json?first=3")["rows"]] == [11]


def test_what_is_not_there_is_said(reader):
    assert reader.code("visit-99")[0] == 404
    assert reader.code("detector-11-7")[0] == 404
    assert reader.code("pixels-11-0.png?layer=nothing/image")[0] == 404
    assert reader.code("pixels-11-0.png?layer=preliminary_visit_image/image&y0=nan")[0] == 400
    assert reader.code("../../etc/passwd")[0] == 404
    code, words = reader.code("pixels-12-1.png?layer=preliminary_visit_image/image")
    assert code == 404
    assert "failed" in words


def test_a_value_is_that_of_the_pixel(reader, out):
    image = skysub.open_campaign(out).visit_image(11, 0).image
    found = reader.json("value-11-0.json?layer=preliminary_visit_image/image&y=5&x=70")
    assert float(found["value"]) == pytest.approx(float(image[5, 70]), rel=1e-6)


def test_a_window_is_drawn_with_row_0_at_the_bottom():
    values = np.arange(12, dtype=np.float32).reshape(3, 4)
    values[2, 3] = np.nan
    data, limits = picture(values, Window(slice(0, 3), slice(0, 4), 6, 8), "linear", (0.0, 11.0))
    assert limits == (0.0, 11.0)
    image = decoded(data)
    assert image.shape == (6, 8)
    # each pixel twice along each axis, brightness rising with x and downwards in the array
    assert image[-1, 0] == 0
    assert image[-1, 7] == image[-2, 6] == round(254 * 3 / 11)
    assert image[0, 0] == round(254 * 8 / 11)
    assert image[0, 7] == 255  # nothing known


def test_a_large_window_is_averaged():
    values = np.zeros((100, 100), np.float32)
    values[:50, :50] = 8.0
    values[0, 0] = np.nan
    image = decoded(picture(values, Window(slice(0, 100), slice(0, 100), 2, 2), "linear", (0.0, 8.0))[0])
    assert image.tolist() == [[0, 0], [254, 0]]


def test_limits_leave_out_the_brightest():
    values = np.zeros((200, 200))
    values[:, :100] = 1.0
    values[3, 3] = 1e9
    assert limits_of(values) == (0.0, 1.0)
    assert limits_of(np.full((3, 3), np.nan)) == (0.0, 1.0)


def decoded(data):
    """Places in the palette of one of our PNG files."""
    import struct
    import zlib

    width, height = struct.unpack(">II", data[16:24])
    start = data.index(b"IDAT")
    (length,) = struct.unpack(">I", data[start - 4 : start])
    rows = np.frombuffer(zlib.decompress(data[start + 4 : start + 4 + length]), np.uint8)
    return rows.reshape(height, width + 1)[:, 1:]


def test_a_port_that_is_taken_is_one_error(dashboard, out):
    port = int(dashboard.url.partition("?")[0].rstrip("/").rpartition(":")[2])
    with pytest.raises(OutputError, match=f"cannot listen on 127.0.0.1:{port}"):
        start_dashboard(out, port=port)


def test_a_visit_without_a_result_has_a_page(tmp_path, raw):
    from skysub.campaign.plan import make_plan
    from skysub.campaign.recipe import load_recipe

    recipe = load_recipe(
        "background", inputs=[f"{raw}/*.fits"], settings=["steps.background.fit.superpixel=16"]
    )
    (tmp_path / "out").mkdir()
    make_plan(recipe, tmp_path / "out").freeze()
    with start_dashboard(tmp_path / "out", token="") as started:
        assert "?" not in started.url
        with urllib.request.urlopen(started.url + "visit-14") as answer:
            assert "No detector of this visit is done yet" in answer.read().decode()
        with urllib.request.urlopen(started.url + "detector-14-0") as answer:
            assert "is not done yet" in answer.read().decode()


@pytest.fixture
def page(browser, dashboard, reader):  # noqa: ARG001
    browser.get("about:blank")
    browser.get_log("browser")
    browser.get(dashboard.url)
    yield browser
    assert browser.get_log("browser") == []


def test_from_the_index_to_pixels(page):
    assert until(page, "return document.querySelectorAll('#visits tr').length") == 4
    assert "token" not in page.current_url
    # the band that is a script is text
    assert page.title != "owned"
    assert SCRIPT in until(page, "return document.querySelector('#visits tr[data-visit=\"13\"]').textContent")
    run(page, "document.querySelector('#visits tr[data-visit=\"11\"] a').click()")
    assert until(page, "return document.querySelectorAll('.tile img').length") >= 3 * 7
    assert run(page, "return [...document.images].every(image => image.complete && image.naturalWidth > 0)")
    run(page, "document.querySelector('.tile[data-key=\"11-1\"]').click()")
    first = until(
        page, "return document.getElementById('view') && document.getElementById('view').dataset.drawn"
    )
    assert first == "preliminary_visit_image/image 0 96 0 128"
    assert until(page, "return document.getElementById('picture').naturalWidth") > 100
    # the keyboard zooms and moves
    run(page, "const v = document.getElementById('view'); v.focus();"
        "v.dispatchEvent(new KeyboardEvent('keydown', {key: '+', bubbles: true}))")  # fmt: skip
    zoomed = until(
        page, "const d = document.getElementById('view').dataset.drawn; return d !== arguments[0] && d", first
    )
    _, y0, y1, _x0, _x1 = zoomed.split()
    assert int(y1) - int(y0) < 96
    assert (int(y0) + int(y1)) / 2 == pytest.approx(48, abs=1)
    run(
        page,
        "const s = document.getElementById('layer'); s.selectedIndex = 1;"
        "s.dispatchEvent(new Event('change'))",
    )
    until(
        page,
        "return document.getElementById('view').dataset.drawn.startsWith('preliminary_visit_image/mask')",
    )
    names = run(
        page,
        "return [...document.querySelectorAll('input, select, button, [role=img]')].map(e =>"
        " e.getAttribute('aria-label') || (e.labels && e.labels.length) || e.textContent.trim())",
    )
    assert all(names)


def test_a_unit_that_lands_appears(browser, tmp_path, raw):
    folder = tmp_path / "raw"
    folder.mkdir()
    for path in raw.glob("v11*.fits"):
        shutil.copy(path, folder)
    output = tmp_path / "out"
    run_small(folder, output)
    with start_dashboard(output, every=0.1) as started:
        browser.get(started.url)
        assert until(browser, "return document.querySelectorAll('#visits tr').length") == 1
        skysub.write_visit_image(make_visit_image(21, 0, level=950.0), folder / "v21_d0.fits")
        run_small(folder, output)
        until(browser, "return document.querySelector('#visits tr').dataset.visit === '21'")
        # rows of a running campaign may show the visit before its unit is done
        until(browser, "return document.getElementById('steps').textContent.includes('4 of 4 detectors')")
        # the store goes away under it
        shutil.rmtree(output)
        words = until(
            browser, "const t = document.getElementById('trouble'); return !t.hidden && t.textContent"
        )
        assert words
    browser.get("about:blank")


def test_previews_are_what_pictures_of_pixels_are(out):
    from skysub.report.views import preview_views, view_of

    campaign = skysub.open_campaign(out)
    products = campaign.visit_products(11)
    quick = list(preview_views(campaign, products, dict(products.markers())))[2]
    slow = view_of(campaign, 11, 2, 56)
    assert (quick.detector, quick.trouble) == (2, "")
    assert quick.pictures.keys() == slow.pictures.keys()
    for name in ("centre", "right", "top"):
        a, b = getattr(quick.footprint, name), getattr(slow.footprint, name)
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-12)
    assert quick.pictures.pop("model").shape == quick.pictures["image"].shape
    for name, values in slow.pictures.items():
        if name == "model":
            continue
        # as `skysub.campaign.store.previews` rounds, and what the pixels' own codec does
        if name in {"sources", "defects"}:
            within = np.full(values.shape, 0.01)
        else:
            off = np.abs(values - np.nanmedian(values))
            within = 1.4826 * np.nanmedian(off) / 16 + 0.1 * off + 5e-4 * np.nanmax(np.abs(values))
        assert (np.isfinite(quick.pictures[name]) == np.isfinite(values)).all(), name
        assert not (np.abs(quick.pictures[name] - values) > within).any(), name


def test_a_preview_of_what_is_not_done_says_why(out):
    with pytest.raises(NotDoneError, match="visit 12 detector 1 failed"):
        skysub.open_campaign(out).preview(12, 1)


def test_a_notebook_shows_a_visit_and_a_campaign(browser, out, tmp_path):
    campaign = skysub.open_campaign(out)
    shown = campaign.show(12)
    assert repr(shown).startswith("<visit 12 of ")
    page = tmp_path / "cell.html"
    page.write_text(f"<body>{shown._repr_html_()}{campaign._repr_html_()}</body>")
    browser.get(page.as_uri())
    assert run(browser, "return document.querySelector('iframe').srcdoc.includes('visit')") is True
    browser.switch_to.frame(0)
    assert run(browser, "return document.querySelectorAll('.tile img').length") == 2 * 7
    assert "failed" in run(browser, "return document.body.textContent")
    browser.switch_to.default_content()
    assert "11" in run(browser, "return document.querySelector('table').textContent")
    browser.get("about:blank")


def test_a_campaign_starts_its_own_dashboard(out):
    with skysub.open_campaign(out).dashboard() as started:
        assert Reader(started).json("status.json")["counts"]["done"] == 11
        assert started.url in started._repr_html_()
