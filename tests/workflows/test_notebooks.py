"""The notebooks run from the first cell to the last, in a kernel of their own."""

from pathlib import Path

import pytest

nbformat = pytest.importorskip("nbformat")
nbclient = pytest.importorskip("nbclient")
pytest.importorskip("ipykernel")

NOTEBOOKS = sorted((Path(__file__).parents[2] / "workflows").glob("*.ipynb"))


def executed(path, folder):
    notebook = nbformat.read(path, as_version=4)
    client = nbclient.NotebookClient(
        notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(folder)}}
    )
    client.execute()
    return notebook


def text_of(notebook):
    parts = []
    for cell in notebook.cells:
        for output in cell.get("outputs", ()):
            data = output.get("data", {})
            parts.append(str(output.get("text", "")) + str(data.get("text/html", data.get("text/plain", ""))))
    return "\n".join(parts)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_runs(path, tmp_path):
    for package in ("sep", "photutils", "matplotlib") if path.stem == "compare" else ():
        pytest.importorskip(package)
    notebook = executed(path, tmp_path)
    errors = [
        output
        for cell in notebook.cells
        for output in cell.get("outputs", ())
        if output.output_type == "error"
    ]
    assert errors == []
    if path.stem == "tutorial":
        said = text_of(notebook)
        assert "data:image/png;base64" in said
        assert "True each pixel is the float32 that was there" in said
        assert "sky has been subtracted already (SKYSUB = T)" in said
        mean = next(line for line in said.splitlines() if line.startswith("mean "))
        assert abs(float(mean.split()[1].rstrip(","))) < 1
    if path.stem == "dashboard":
        said = text_of(notebook)
        assert "127.0.0.1" in said
        assert "iframe" in said
        assert "broken.fits" in said


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_is_kept_without_what_it_printed(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert all(not cell.outputs for cell in notebook.cells if cell.cell_type == "code")
