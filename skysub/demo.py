"""What ``make demo`` does: two simulated visits through the chain of a data release, and their report."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from skysub.cli import main

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["run"]

VISITS, DETECTORS = 2, 4


def run(arguments: Sequence[str] | None = None) -> int:
    """Show each command and run it; the last line printed is the report's path.

    A second time the simulated visits serve again, and the campaign finds that all is done.

    Returns
    -------
    code
        0 when all went well, else the code of the verb that did not.
    """
    parser = argparse.ArgumentParser(prog="skysub.demo", description=__doc__)
    parser.add_argument("folder", nargs="?", type=Path, default=Path("demo"), help="default: demo")
    parser.add_argument("--shape", default="2000x2036", help="of a detector, rows x columns")
    options = parser.parse_args(arguments)
    folder = options.folder
    raw, out = folder / "raw", folder / "out"
    size = ["--visits", str(VISITS), "--detectors", str(DETECTORS), "--shape", options.shape]
    if len(list(raw.glob("post_isr_image_*.fits"))) < VISITS * DETECTORS:
        scene = ["--scene", "moonlit", "--seed", "8", "--workers", "2", "--overwrite"]
        code = _verb("simulate", str(folder), *size, *scene)
        if code:
            return code
    code = _verb("run", "data_release", "--inputs", f"{raw}/*.fits", "--output", str(out))
    # failures are best looked at in the report
    return max(code, _verb("report", str(out)))


def _verb(*words: str) -> int:
    print(f"$ skysub {shlex.join(words)}", flush=True)
    return main(words)


if __name__ == "__main__":
    raise SystemExit(run())
