"""The tutorial runs from its first cell to its last, as a person's Jupyter runs it."""

import json
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parents[2] / "workflows"


@pytest.mark.filterwarnings("ignore")
def test_the_tutorial(tmp_path, monkeypatch):
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    notebook = nbformat.read(FOLDER / "tutorial.ipynb", as_version=4)
    assert not any(cell.get("outputs") for cell in notebook.cells), "notebooks are kept without outputs"
    # the code of this checkout, in the kernel's own process
    monkeypatch.setenv("PYTHONPATH", str(FOLDER.parent))
    nbclient.NotebookClient(
        notebook, timeout=500, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    ).execute()
    said = json.dumps([cell.get("outputs", []) for cell in notebook.cells])
    assert "data:image/png;base64" in said
    assert "True each pixel is the float32 that was there" in said
    assert "sky has been subtracted already (SKYSUB = T)" in said
    mean = next(
        line
        for line in "".join(
            o["text"] for c in notebook.cells for o in c.get("outputs", []) if "text" in o
        ).split("\n")
        if line.startswith("mean ")
    )
    assert abs(float(mean.split()[1].rstrip(","))) < 1
