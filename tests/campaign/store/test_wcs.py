"""World coordinates come back from a marker to the last bit."""

import json

import numpy as np
import pytest
from astropy.io.fits import Header
from astropy.wcs import WCS, Sip

import skysub
from skysub.campaign.store.records import described, visit_image_fields


def make_wcs(kind):
    rng = np.random.default_rng(3)
    header = Header()
    suffix = "TPV" if kind == "tpv" else "TAN-SIP" if kind == "sip" else "TAN"
    header.update(CTYPE1=f"RA---{suffix}", CTYPE2=f"DEC--{suffix}")
    if kind == "tpv":
        header.update(PV1_1=1 + 1e-5 * rng.random(), PV2_1=1 + 1e-5 * rng.random(), PV1_4=1e-4 / 3)
    wcs = WCS(header)
    wcs.wcs.crval = 30 + rng.random(2)
    wcs.wcs.crpix = 1000 * rng.random(2)
    if kind == "pc":
        wcs.wcs.pc = np.eye(2) + 1e-3 * rng.random((2, 2))
        wcs.wcs.cdelt = 5e-5 * (1 + rng.random(2))
    else:
        wcs.wcs.cd = 5e-5 * (np.eye(2) + 1e-2 * rng.random((2, 2)))
    if kind == "sip":
        terms = [1e-7 * np.triu(rng.random((3, 3)))[::-1] for _ in range(2)]
        wcs.sip = Sip(*terms, None, None, wcs.wcs.crpix)
    wcs.wcs.set()
    return wcs


@pytest.mark.parametrize("kind", ["cd", "pc", "tpv", "sip"])
def test_world_coordinates_are_exact(kind):
    wcs = make_wcs(kind)
    visit_image = skysub.VisitImage(
        image=np.zeros((3, 4), np.float32),
        mask=np.zeros((3, 4), np.int32),
        planes=skysub.MaskPlanes({"BAD": 0}),
        visit=1,
        detector=2,
        wcs=wcs,
    )
    record = json.loads(json.dumps(described(visit_image, visit_image.planes)))
    back = visit_image_fields(record)["wcs"]
    x, y = np.random.default_rng(1).uniform(0, 4000, (2, 1000))
    found, expected = back.all_pix2world(x, y, 0), wcs.all_pix2world(x, y, 0)
    if kind == "tpv":
        # its distortion is had as cards alone
        np.testing.assert_allclose(found, expected, rtol=1e-14)
    else:
        np.testing.assert_array_equal(found, expected)
