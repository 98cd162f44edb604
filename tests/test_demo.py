"""``make demo``, with small detectors."""

import pytest

from skysub.demo import run


@pytest.mark.long
def test_the_demo_ends_with_its_report_and_runs_again(tmp_path, capsys):
    report = tmp_path / "demo" / "out" / "report.html"
    assert run([str(tmp_path / "demo"), "--shape", "512x520"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == str(report)
    assert report.read_text().count('class="visit"') == 2
    assert run([str(tmp_path / "demo"), "--shape", "512x520"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == str(report)
    assert any(line.startswith("nothing to do") for line in lines)
    assert not any("simulate" in line for line in lines)
