"""Scripts for shells, asked as a shell asks them."""

import shutil
import subprocess

import pytest

from skysub.cli import main


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("skysub subt", "subtract"),
        ("skysub subtract --pic", "--picture"),
        ("skysub restore --ov", "--overwrite"),
    ],
)
def test_bash(line, expected, capsys):
    if not shutil.which("bash"):
        pytest.skip("there is no bash")
    assert main(["completion", "bash"]) == 0
    words = line.split()
    ask = f"COMP_WORDS=({line}); COMP_CWORD={len(words) - 1}; _skysub; echo ${{COMPREPLY[@]}}"
    done = subprocess.run(
        ["bash", "-c", capsys.readouterr().out + "\n" + ask], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == [expected]


def test_zsh_and_fish(capsys):
    assert main(["completion", "zsh"]) == 0
    assert "bashcompinit" in capsys.readouterr().out
    assert main(["completion", "fish"]) == 0
    said = capsys.readouterr().out
    assert "'__fish_seen_subcommand_from subtract' -l picture" in said
