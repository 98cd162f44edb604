"""The report as a reader meets it, in Chromium."""

import json
import time

import pytest

from skysub.report.write import write_report


@pytest.fixture
def page(browser, report):
    browser.get("about:blank")
    for kind in ("browser", "performance"):
        browser.get_log(kind)
    browser.get(report.as_uri())
    yield browser
    assert browser.get_log("browser") == []


def run(page, script, *arguments):
    return page.execute_script(script, *arguments)


def until(page, script, *arguments):
    """Wait for a script to return something true, and return it."""
    end = time.monotonic() + 10
    while time.monotonic() < end:
        value = run(page, script, *arguments)
        if value:
            return value
        time.sleep(0.02)
    raise AssertionError(f"never true: {script}")


def column(page, table, index):
    return run(
        page,
        "return [...document.querySelectorAll(`#${arguments[0]} tbody tr`)]"
        ".map(row => row.cells[arguments[1]].textContent)",
        table,
        index,
    )


def test_all_pictures_load(page):
    pictures = run(
        page,
        "return Promise.all([...document.images].map(image => image.decode()"
        ".then(() => [image.naturalWidth, image.naturalHeight])))",
    )
    # eleven detectors: image, model, residual, mask, superpixels, used, error
    assert len(pictures) == 11 * 7
    assert all(width > 0 and height > 0 for width, height in pictures)
    # 96 rows of 128 columns fit without binning
    assert [128, 96] in pictures


def test_a_detector_that_failed_keeps_its_place(page):
    """The middle one of visit 12, in each of its seven panels; it says why, and leads to the failures."""
    found = run(
        page,
        "return [...document.querySelectorAll('.absent')].map(each => ["
        "each.title, each.closest('figure').dataset.visit, each.style.left])",
    )
    assert len(found) == 7
    title, visit, left = found[0]
    assert title.startswith("detector 1 failed: ")
    assert visit == "12"
    # three of 128 pixels and two gaps of 4
    assert float(left.rstrip("%")) == pytest.approx(100 * 132 / 392, abs=0.1)
    run(page, "document.querySelector('.absent').click()")
    assert until(page, "return location.hash") == "#failures"


def test_nothing_is_fetched(page):
    messages = [json.loads(entry["message"])["message"] for entry in page.get_log("performance")]
    urls = [
        message["params"]["request"]["url"]
        for message in messages
        if message["method"] == "Network.requestWillBeSent"
    ]
    assert any(url.startswith("file:") for url in urls)
    assert [url for url in urls if not url.startswith(("file:", "data:"))] == []


def test_text_of_headers_and_file_names_is_text(page):
    assert page.title == "out · skysub"
    shown = run(page, "return document.body.textContent")
    assert "<script>document.title='owned'</script>" in shown
    assert run(page, "return document.scripts.length") == 1


def test_a_script_that_slips_in_would_not_run(page):
    run(
        page,
        "const s = document.createElement('script'); s.textContent = \"document.title = 'owned'\";"
        "document.body.append(s)",
    )
    assert page.title == "out · skysub"
    (refused,) = page.get_log("browser")
    assert "Content Security Policy" in refused["message"]


@pytest.mark.parametrize(("name", "numeric"), [("Sky level", True), ("Band", False)])
def test_tables_sort_by_click(page, name, numeric):
    heads = run(
        page, "return [...document.querySelectorAll('#detector-table th button')].map(b => b.textContent)"
    )
    index = next(i for i, words in enumerate(heads) if words.startswith(name))
    click = "document.querySelectorAll('#detector-table th button')[arguments[0]].click()"
    key = (lambda text: float(text.replace(",", ""))) if numeric else str
    run(page, click, index)
    rising = [key(text) for text in column(page, "detector-table", index)]
    assert rising == sorted(rising)
    assert len(set(rising)) > 1
    run(page, click, index)
    assert [key(text) for text in column(page, "detector-table", index)] == sorted(rising, reverse=True)
    state = "return document.querySelectorAll('#detector-table th')[arguments[0]].ariaSort"
    assert run(page, state, index) == "descending"


def test_the_latest_visit_comes_first(page):
    visits = run(page, "return [...document.querySelectorAll('article.visit')].map(each => each.id)")
    assert visits == ["v-14", "v-13", "v-12", "v-11"]


def test_the_verdict_leads(page):
    assert run(page, "return document.querySelector('.verdict').textContent").startswith("1 unit failed.")


def test_a_picture_opens_full_size(page):
    run(page, "document.querySelectorAll('#v-11 .panel')[2].querySelectorAll('.tile')[1].click()")
    until(page, "return document.getElementById('viewer').open")
    assert run(page, "return document.getElementById('viewer-title').textContent") == "Visit 11 · detector 1"
    assert "Residual" in run(page, "return document.querySelector('#viewer figcaption').textContent")
    width = run(page, "return document.querySelector('#viewer .large img').getBoundingClientRect().width")
    small = run(page, "return document.querySelector('.tile img').getBoundingClientRect().width")
    assert width > 3 * small
    assert run(page, "return document.querySelectorAll('#viewer .strip img').length") == 7
    assert "900" not in run(page, "return document.querySelector('#viewer dl').textContent")


def test_arrows_step_through_detectors_and_escape_closes(page):
    from selenium.webdriver.common.keys import Keys

    run(page, "document.querySelector('#v-11 .tile').click()")
    title = "return document.getElementById('viewer-title').textContent === arguments[0]"
    until(page, title, "Visit 11 · detector 0")
    page.switch_to.active_element.send_keys(Keys.ARROW_RIGHT)
    until(page, title, "Visit 11 · detector 1")
    page.switch_to.active_element.send_keys(Keys.ARROW_LEFT)
    until(page, title, "Visit 11 · detector 0")
    page.switch_to.active_element.send_keys(Keys.ESCAPE)
    until(page, "return !document.getElementById('viewer').open && location.hash === ''")


def test_whole_focal_planes_and_charts_open_full_size(page):
    figures = run(page, "return document.querySelectorAll('.enlarge').length")
    assert figures == run(page, "return document.querySelectorAll('figure').length")
    for number in range(figures):
        run(page, "document.querySelectorAll('.enlarge')[arguments[0]].click()", number)
        size = run(
            page,
            "const shown = document.querySelector('#viewer .plane, #viewer svg').getBoundingClientRect();"
            "document.getElementById('viewer').close(); return [shown.width, shown.height]",
        )
        assert max(size) > 500


def test_a_link_to_a_detector_opens_it(browser, report):
    browser.get("about:blank")
    browser.get(report.as_uri() + "#d-12-2")
    until(browser, "return document.getElementById('viewer').open")
    assert (
        run(browser, "return document.getElementById('viewer-title').textContent") == "Visit 12 · detector 2"
    )
    run(browser, "document.getElementById('viewer').close()")
    assert browser.get_log("browser") == []


def test_detectors_lie_side_by_side_as_on_the_sky(page):
    boxes = run(
        page,
        "return [...document.querySelector('.plane').querySelectorAll('.tile')].map(tile => {"
        "const box = tile.getBoundingClientRect(); return [box.left, box.top, box.right, box.bottom]; })",
    )
    first, second, third = boxes
    assert first[2] < second[0] < second[2] < third[0]
    assert first[1] == pytest.approx(second[1], abs=1) == pytest.approx(third[1], abs=1)
    # 4 pixels of gap between 128 pixels of detector
    gap = (second[0] - first[2]) / (first[2] - first[0])
    assert gap == pytest.approx(4 / 128, abs=0.01)


def test_dark_and_light(page):
    colours = []
    for scheme in ("light", "dark"):
        page.execute_cdp_cmd(
            "Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
        )
        colours.append(run(page, "return getComputedStyle(document.body).backgroundColor"))
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
    light, dark = (sum(int(part) for part in colour[4:-1].split(",")) for colour in colours)
    assert light > 600
    assert dark < 150


def test_a_campaign_of_which_all_failed(browser, tmp_path, raw):
    from .conftest import run_small

    failing = tmp_path / "failing"
    failing.mkdir()
    (bad,) = raw.glob("*script*")
    (failing / bad.name).write_bytes(bad.read_bytes())
    (failing / "torn.fits").write_bytes(bad.read_bytes()[:1000])
    run_small(failing, tmp_path / "out")
    browser.get(write_report(tmp_path / "out").as_uri())
    assert run(browser, "return document.querySelectorAll('.failure').length") == 2
    assert run(browser, "return document.querySelectorAll('.failure details pre').length") == 1
    assert not run(browser, "return document.querySelector('.failure details').open")
    assert browser.get_log("browser") == []
