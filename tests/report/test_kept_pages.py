"""Pages that a dashboard keeps, and what is read once for a visit."""

import skysub
from skysub.campaign.store import arrays
from skysub.report.dashboard.pages import state_of
from skysub.report.dashboard.server import KeptPages
from skysub.report.dashboard.watch import Watch


def test_the_last_pages_are_kept():
    made = []

    def making(name):
        return lambda: made.append(name) or name

    kept = KeptPages(most=2)
    for name in ("a", "b", "a", "c", "a", "b"):
        assert kept.of(name, making(name)) == name
    # b went when c came, as a was looked at after it
    assert made == ["a", "b", "c", "b"]


def test_a_page_rests_on_the_counts_of_its_visit(out):
    watch = Watch(out, every=0.05)
    try:
        for _ in range(200):
            if len(watch.latest.visits) == 4:
                break
            watch._stop.wait(0.05)
        snapshot = watch.latest
        assert state_of(snapshot, 11) == state_of(snapshot, 11)
        assert state_of(snapshot, 11) != state_of(snapshot, 13)
        assert state_of(snapshot, 99) is None
    finally:
        watch.close()


def test_backgrounds_of_a_visit_are_read_once(out):
    campaign = skysub.open_campaign(out)
    name = "preliminary_visit_image_background"
    name = (
        name
        if name in campaign.products
        else next(each for each in campaign.products if campaign.kind(each) == "background")
    )
    arrays._kept_rows.cache_clear()
    first, second = (campaign.background(name, 11, detector) for detector in (0, 1))
    assert arrays._kept_rows.cache_info().misses == 1
    assert arrays._kept_rows.cache_info().hits == 1
    assert first[0].statistics.mean.tobytes() != second[0].statistics.mean.tobytes()


def test_products_of_a_visit_are_those_of_the_campaign(out):
    campaign = skysub.open_campaign(out)
    products = campaign.visit_products(12)
    assert [detector for detector, _ in products.markers()] == [0, 2]
    (name,) = products.names("background")
    assert products.value(name, 1) is None
    theirs = campaign.background(name, 12, 2)
    assert products.value(name, 2)[0].coefficients.tobytes() == theirs[0].coefficients.tobytes()
    (image,) = products.names("image")
    found, entry = products.image(image, 2)
    x, y = found.sky_positions(entry, [3.0, 40.0], [5.0, 6.0])
    wcs = campaign.wcs(12, 2)
    for ours, there in zip((x, y), wcs.all_pix2world([3.0, 40.0], [5.0, 6.0], 0), strict=True):
        assert abs(ours - there).max() < 1e-9
    assert products.image(image, 1) is None
