"""A campaign in a folder of this machine."""

import subprocess
import sys

import pytest

from skysub.campaign.store.folder_lock import locked
from skysub.errors import OutputInUseError


def test_the_lock_dies_with_its_process(tmp_path):
    hold = (
        "import sys, time; from pathlib import Path; from skysub.campaign.store.folder_lock import locked\n"
    )
    hold += "with locked(Path(sys.argv[1])): print('held', flush=True); time.sleep(60)"
    process = subprocess.Popen([sys.executable, "-c", hold, str(tmp_path / "out")], stdout=subprocess.PIPE)
    process.stdout.readline()
    with pytest.raises(OutputInUseError), locked(tmp_path / "out"):
        pass
    process.kill()
    process.communicate()
    with locked(tmp_path / "out"):
        pass
