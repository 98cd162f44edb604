"""``skysub subtract`` and ``restore`` as a person runs them."""

import os
import subprocess
import sys

import numpy as np
import pytest
from astropy.io import fits

from skysub.cli import main


@pytest.fixture(scope="module")
def pixels():
    rng = np.random.default_rng(12)
    y, x = np.mgrid[:128, :150]
    return rng.poisson(500 + 0.2 * x + 0.1 * y).astype(np.float32)


@pytest.fixture
def image(pixels, tmp_path):
    path = tmp_path / "field.fits"
    fits.PrimaryHDU(pixels, fits.Header({"BUNIT": "adu"})).writeto(path)
    return path


def test_in_a_process_of_its_own(image, tmp_path):
    command = [sys.executable, "-m", "skysub", "subtract", image.name, "--picture", "nowhere.fits"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 1
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("field.fits")]
    assert float(line.partition("sky ")[2].split()[0]) == pytest.approx(521.3, abs=3)
    assert "noise 2" in line
    assert "% masked" in line
    assert line.endswith("-> field_skysub.fits")
    assert "1 subtracted, 1 failed" in done.stdout
    # on a machine that has no kernels yet, a line before says that they are compiled
    assert done.stderr.splitlines()[-1] == "nowhere.fits: there is no such file"
    assert (tmp_path / "field_skysub.png").is_file()
    assert fits.getval(tmp_path / "field_skysub.fits", "SKYSUB") is True


def test_help_loads_next_to_nothing():
    program = (
        "import sys; from skysub.cli import main\n"
        "for verb in ('subtract', 'restore', 'run', 'plan', 'status', 'export', 'report', 'score'):\n"
        "    try: main([verb, '--help'])\n"
        "    except SystemExit: pass\n"
        "heavy = {'numpy', 'numba', 'dask', 'zarr', 'astropy', 'pydantic', 'yaml', 'distributed'}\n"
        "sys.exit(', '.join(sorted(heavy & set(sys.modules))) or 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr


def test_subtracting_loads_no_astropy(image):
    program = (
        "import sys; from skysub.cli import main\n"
        f"code = main(['subtract', {str(image)!r}])\n"
        "sys.exit(code or ', '.join(sorted({'astropy', 'dask', 'pydantic'} & set(sys.modules))) or 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr


def test_nothing_is_lost_without_being_asked(image, pixels, tmp_path, capsys):
    assert main(["subtract", str(image)]) == 0
    assert main(["subtract", str(image)]) == 1
    assert "--overwrite replaces it" in capsys.readouterr().err
    assert main(["subtract", str(image), "--overwrite"]) == 0
    assert main(["subtract", str(image), "-o", str(image), "--overwrite"]) == 1
    assert "the output would be the image itself" in capsys.readouterr().err
    np.testing.assert_array_equal(fits.getdata(image), pixels)
    assert main(["subtract", str(tmp_path / "field_skysub.fits")]) == 1
    assert "skysub restore" in capsys.readouterr().err
    assert main(["subtract", str(tmp_path / "field_skysub.fits"), "--again"]) == 0


def test_restore(image, pixels, tmp_path, capsys):
    assert main(["subtract", str(image)]) == 0
    out = tmp_path / "back.fits"
    assert main(["restore", str(tmp_path / "field_skysub.fits"), "-o", str(out)]) == 0
    assert "restored exactly" in capsys.readouterr().out
    np.testing.assert_array_equal(fits.getdata(out), pixels)
    assert main(["restore", str(image)]) == 1
    assert "does not hold what was subtracted" in capsys.readouterr().err


def test_outputs(image, tmp_path, capsys):
    other = tmp_path / "b" / "field.fits"
    other.parent.mkdir()
    other.write_bytes(image.read_bytes())
    folder = tmp_path / "made" / "here"
    assert main(["subtract", str(image), str(other), "-o", str(folder)]) == 1
    said = capsys.readouterr()
    assert "is also that of" in said.err
    assert [path.name for path in folder.iterdir()] == ["field_skysub.fits"]
    assert main(["subtract", str(image), str(other), "-o", str(tmp_path / "x.fits")]) == 1
    assert "give a folder" in capsys.readouterr().err
    assert main(["subtract", str(image), "-o", str(tmp_path / "x.fits"), "--picture"]) == 0
    assert (tmp_path / "x.fits").is_file()
    assert (tmp_path / "x.png").is_file()
    assert main(["subtract", str(image), "-o", f"{image}/sub"]) == 1
    assert "cannot be made" in capsys.readouterr().err


def test_endings():
    from skysub.cli.outputs import stem_of

    for name in ("a.fits", "a.fits.gz", "a.fit", "a.FITS.fz", "a.fits.bz2", "a"):
        assert stem_of(name) == "a"
    assert stem_of(".fits") == ".fits"
    assert stem_of("a.b.fits") == "a.b"


def test_settings(image, tmp_path, capsys):
    spline = ["--set", "final.model=natural", "--set", "final.superpixel=32"]
    assert main(["subtract", str(image), *spline, "--config", "lsst"]) == 0
    assert fits.getval(tmp_path / "field_skysub.fits", "SKYMODEL") == "natural"
    settings = tmp_path / "settings.yaml"
    settings.write_text("base: default\nsky:\n  background:\n    order: 1\n")
    assert main(["subtract", str(image), "--config", str(settings), "--overwrite"]) == 0
    assert fits.getval(tmp_path / "field_skysub.fits", "SKYMODEL") == "chebyshev 1"
    for arguments, said in (
        (["--config", "fast"], "default and lsst"),
        (["--set", "sky.backgroud.order=1"], "did you mean"),
        (["--set", "final.model=cubic"], "akima"),
        (["--ingest", "gian=2"], "gain"),
        (["--threads", "0"], "at least 1"),
    ):
        assert main(["subtract", str(image), "--overwrite", *arguments]) == 1
        assert said in capsys.readouterr().err


def test_ingest_and_detectors(pixels, tmp_path, capsys):
    path = tmp_path / "c4d_1_ooi_z.fits"
    fits.HDUList(
        [
            fits.PrimaryHDU(header=fits.Header({"INSTRUME": "DECam", "EXPNUM": 5, "PLVER": "V4.8"})),
            *(fits.ImageHDU(pixels + n, fits.Header({"CCDNUM": n}), name=f"N{n}") for n in (3, 7)),
        ]
    ).writeto(path)
    assert main(["subtract", str(path)]) == 0
    said = capsys.readouterr().out
    assert "detector 3: sky" in said
    assert (tmp_path / "c4d_1_ooi_z_skysub_7.fits").is_file()
    one = str(tmp_path / "one.fits")
    assert main(["subtract", str(path), "--detector", "7", "-o", one, "--ingest", "unit=electron"]) == 0
    assert fits.getval(one, "BUNIT") == "electron"


def test_names_that_would_move_the_cursor(pixels, tmp_path, capsys):
    path = tmp_path / "a\x1b[2Jb.fits"
    fits.PrimaryHDU(pixels).writeto(path)
    assert main(["subtract", str(path)]) == 0
    assert main(["subtract", os.fspath(path)]) == 1
    said = capsys.readouterr()
    assert "\x1b" not in said.out + said.err
