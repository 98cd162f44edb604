"""Where a run stands, in Prometheus' text format: in a file for its node exporter, or at a local port."""

from __future__ import annotations

import os
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

from skysub.campaign.store.storage_path import writing
from skysub.errors import OutputError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

__all__ = ["Snapshot", "exposition", "published", "status_exposition"]


@dataclass(frozen=True)
class Snapshot:
    """Where a run stands."""

    output: str
    done: int = 0
    failed: int = 0
    waiting: int = 0
    left: int = 0
    slots: int = 0
    """Units that workers do at once."""
    stages: Mapping[str, float] = field(default_factory=dict)
    """Seconds of all workers by stage."""
    ended: float | None = None
    """When the run ended, seconds since 1970; None while it goes on."""
    exit_code: int | None = None


def exposition(snapshot: Snapshot) -> str:
    """Return the metrics of a run."""
    rows: list[tuple[str, str, str, list[tuple[dict[str, str], float]]]] = [
        (
            "skysub_run_units",
            "gauge",
            "Units of this run by their state.",
            [({"state": name}, getattr(snapshot, name)) for name in ("done", "failed", "waiting", "left")],
        ),
        ("skysub_run_slots", "gauge", "Units that the workers do at once.", [({}, snapshot.slots)]),
        (
            "skysub_run_stage_seconds_total",
            "counter",
            "Time of all workers by stage of the work.",
            [({"stage": name}, seconds) for name, seconds in snapshot.stages.items()],
        ),
        ("skysub_run_updated_seconds", "gauge", "Time of these figures, since 1970.", [({}, time.time())]),
    ]
    if snapshot.ended is not None:
        rows.append(
            ("skysub_run_ended_seconds", "gauge", "End of the run, since 1970.", [({}, snapshot.ended)])
        )
    if snapshot.exit_code is not None:
        rows.append(("skysub_run_exit_code", "gauge", "Exit code of the run.", [({}, snapshot.exit_code)]))
    return _text(rows, snapshot.output)


def status_exposition(output: str, counts: Mapping[str, int], exit_code: int) -> str:
    """Return the metrics of a whole campaign, by what its store holds."""
    return _text(
        [
            (
                "skysub_campaign_units",
                "gauge",
                "Units of the campaign by their state; unreadable ones are input files.",
                [({"state": name}, count) for name, count in counts.items()],
            ),
            ("skysub_campaign_exit_code", "gauge", "Exit code of skysub status.", [({}, exit_code)]),
        ],
        output,
    )


@contextmanager
def published(file: Path | None, port: int | None) -> Iterator[Callable[[Snapshot], None]]:
    """Keep a file up to date, and answer at a port of this machine alone, until the block ends.

    Parameters
    ----------
    file
        Replaced as a whole each time; None: no file.
    port
        Of 127.0.0.1; None: no port.

    Raises
    ------
    OutputError
        When the file cannot be written, or the port is taken.
    """
    latest = [""]

    def publish(snapshot: Snapshot) -> None:
        latest[0] = exposition(snapshot)
        if file is not None:
            partial = file.with_name(f".{file.name}.{os.getpid()}.partial")
            with writing(file.parent):
                file.parent.mkdir(parents=True, exist_ok=True)
                partial.write_text(latest[0])
                partial.replace(file)

    if port is None:
        yield publish
        return

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found = self.path == "/metrics"
            data = latest[0].encode() if found else b"see /metrics\n"
            self.send_response(200 if found else 404)
            self.send_header("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_given: object) -> None:
            """Say nothing on the terminal."""

    try:
        server = ThreadingHTTPServer(("127.0.0.1", port), Answer)
    except OSError as error:
        raise OutputError(f"no metrics at 127.0.0.1:{port}: {error.strerror}; choose another port") from None
    serving = threading.Thread(target=server.serve_forever, daemon=True)
    serving.start()
    try:
        yield publish
    finally:
        server.shutdown()
        server.server_close()


def _text(rows: list[tuple[str, str, str, list[tuple[dict[str, str], float]]]], output: str) -> str:
    lines: list[str] = []
    for name, kind, purpose, values in rows:
        if values:
            lines += [f"# HELP {name} {purpose}", f"# TYPE {name} {kind}"]
        for labels, value in values:
            given = ",".join(
                f'{key}="{_escaped(text)}"' for key, text in {"output": output, **labels}.items()
            )
            lines.append(f"{name}{{{given}}} {value:.15g}")
    return "\n".join(lines) + "\n"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
