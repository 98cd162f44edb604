"""The dashboard of a survey: 2,000 visits of 189 detectors by default.

    python benchmarks/dashboard_scale.py [--visits 2000] [--folder FOLDER]

The campaign is that of campaign_scale.py, real records under other numbers; pictures stand in the markers
of the latest visits. The dashboard runs in a process of its own and is asked as a browser asks: seconds of
each answer, of three the median, and the largest memory that it took.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from http.cookiejar import CookieJar
from pathlib import Path

HERE = Path(__file__).resolve().parent


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--visits", type=int, default=2000)
    parser.add_argument("--detectors", type=int, default=189)
    parser.add_argument("--pictures", type=int, default=50, help="visits that have pictures")
    parser.add_argument("--folder", type=Path, help="keep the campaign there, or use the one that is there")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.folder or Path(scratch)
        if not (folder / "all.yaml").exists():
            import campaign_scale

            folder.mkdir(parents=True, exist_ok=True)
            units = options.visits * (2 * options.detectors + 1)
            campaign_scale.synthesise(folder, units, options.detectors, with_payload=options.pictures)
        measure(folder / "out", options.visits)


def measure(output: Path, last: int) -> None:
    clock = time.perf_counter()
    server = subprocess.Popen(
        [sys.executable, "-m", "skysub", "dashboard", str(output)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    try:
        assert server.stdout is not None
        address = next(word for line in server.stdout for word in line.split() if word.startswith("http"))
        print(f"address after {time.perf_counter() - clock:.1f} s")
        opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(CookieJar()))
        base = address.partition("?")[0]

        def asked(path: str) -> bytes:
            with opener.open(base + path, timeout=120) as answer:
                return answer.read()

        opener.open(address, timeout=120).read()
        print(f"first page after {time.perf_counter() - clock:.1f} s")
        while json.loads(asked("status.json"))["number"] < 2:
            time.sleep(0.2)
        print(f"all visits looked at after {time.perf_counter() - clock:.1f} s")
        for name, paths in {
            "index": ["", "status.json", "visits.json?first=0"],
            "visits far back, of a band": [f"visits.json?first={last // 2}&wanted=r"],
            "visit": [f"visit-{last}"],
            "visit before": [f"visit-{last - 1}"],
            "visit after": [f"visit-{last - 2}"],
            "detector": [f"detector-{last}-100"],
        }.items():
            times = []
            for _ in range(3):
                clock, size = time.perf_counter(), 0
                for path in paths:
                    size += len(asked(path))
                times.append(time.perf_counter() - clock)
            print(
                f"{name}: {statistics.median(times):.2f} s (first {times[0]:.2f}), {size / 1e3:.0f} kB",
                flush=True,
            )
        status = Path(f"/proc/{server.pid}/status").read_text().splitlines()
        (peak,) = [int(line.split()[1]) for line in status if line.startswith("VmHWM")]
        print(f"{peak / 1024:.0f} MiB at most")
    finally:
        server.terminate()
        server.wait()


if __name__ == "__main__":
    sys.path.insert(0, str(HERE))
    os.environ["PYTHONPATH"] = str(HERE)
    main()
