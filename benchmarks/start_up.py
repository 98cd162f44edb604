"""What a fresh process pays before its first background: import, kernels from the cache, second call.

    python benchmarks/start_up.py [--rounds 7]

Run it twice: the first run may compile. Prints medians in seconds.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys

PROGRAM = """
import time
start = time.perf_counter()
import skysub
imported = time.perf_counter()
import numpy as np
image = np.random.default_rng(1).standard_normal((512, 512)).astype("f4")
mask = np.zeros(image.shape, "i4")
ready = time.perf_counter()
skysub.subtract_background(image, (mask, 1))
first = time.perf_counter()
skysub.subtract_background(image, (mask, 1))
print(imported - start, first - ready, time.perf_counter() - first)
"""


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=7)
    rounds = parser.parse_args().rounds
    runs = []
    for _ in range(rounds):
        done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
        runs.append([float(word) for word in done.stdout.split()])
    for name, values in zip(
        ("import skysub", "first call", "second call"), zip(*runs, strict=True), strict=True
    ):
        print(f"{name:15}{statistics.median(values):8.3f} s")


if __name__ == "__main__":
    main()
