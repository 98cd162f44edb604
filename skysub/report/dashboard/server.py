"""``skysub dashboard``: the pages of a campaign over HTTP, on this machine alone unless told otherwise."""

from __future__ import annotations

import asyncio
import hmac
import secrets
import socket
import threading
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import tornado.httpserver
import tornado.ioloop
import tornado.web

from skysub.errors import NotDoneError, OutputError, SkysubError
from skysub.report.dashboard import pages
from skysub.report.dashboard.pixels import STRETCHES, Pixels, Window, picture
from skysub.report.dashboard.watch import Watch
from skysub.report.reference import reference_of
from skysub.report.templating import environment, template_text

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterable

__all__ = ["Dashboard", "start_dashboard"]

_COOKIE = "skysub-token"
_POLICY = (
    "default-src 'none'; img-src 'self' data: blob:; style-src 'self' 'unsafe-inline'; script-src 'self'; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'self'"
)
_WORKERS = 3
"""Requests that are worked on at a time."""


@dataclass(frozen=True)
class _Shared:
    watch: Watch
    pixels: Pixels
    token: str
    pool: ThreadPoolExecutor
    kept: KeptPages


class KeptPages:
    """Pages of visits, as long as nothing of them changes; those that were looked at last."""

    def __init__(self, most: int = 12) -> None:
        self._most = most
        self._pages: OrderedDict[Any, str] = OrderedDict()
        self._lock = threading.Lock()

    def of(self, key: Any, make: Callable[[], str]) -> str:
        """Return the page of a key, made anew where it is not kept."""
        with self._lock:
            if key in self._pages:
                self._pages.move_to_end(key)
                return self._pages[key]
        page = make()
        with self._lock:
            self._pages[key] = page
            while len(self._pages) > self._most:
                self._pages.popitem(last=False)
        return page


class Dashboard:
    """A running dashboard; `close` ends it.

    Displayed in a notebook it is a link to its pages.
    """

    def __init__(self, shared: _Shared, server: Any, loop: Any, thread: threading.Thread, url: str) -> None:
        self._shared = shared
        self._server = server
        self._loop = loop
        self._thread = thread
        self.url = url
        """Address of its first page, with the token that opens it."""

    def close(self) -> None:
        """End it; the campaign is not touched."""

        def stop() -> None:
            self._server.stop()
            self._loop.stop()

        if self._thread.is_alive():
            self._loop.add_callback(stop)
            self._thread.join(timeout=10)
        self._shared.watch.close()
        self._shared.pool.shutdown(wait=False, cancel_futures=True)

    def wait(self) -> None:
        """Wait until it ends (or Ctrl-C)."""
        while self._thread.is_alive():
            self._thread.join(timeout=0.5)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Dashboard {self.url}>"

    def _repr_html_(self) -> str:
        return f'<a href="{self.url}" target="_blank" rel="noopener">{self.url}</a>'


def start_dashboard(
    output: str | os.PathLike[str],
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    token: str | None = None,
    every: float = 2.0,
    against: Iterable[str | os.PathLike[str]] = (),
) -> Dashboard:
    """Serve the pages of a campaign in a thread of this process, until `Dashboard.close`.

    Only the store is read, so it may run beside the campaign, or on another machine that sees the store.

    Parameters
    ----------
    output
        Folder or address of the campaign.
    host
        Address to listen on; the default can be reached from this machine alone.
    port
        0 takes a free one.
    token
        Word that opens the pages; None makes one up, and "" asks for none.
    every
        Seconds between two looks at the store.
    against
        Campaigns before this one, whose figures say what is usual.

    Raises
    ------
    OutputError
        When the address cannot be listened on.
    SkysubError
        When there is no campaign, or its layout is not known.
    """
    watch = Watch(output, every=every, reference=reference_of(against))
    word = secrets.token_urlsafe(18) if token is None else token
    shared = _Shared(
        watch, Pixels(), word, ThreadPoolExecutor(_WORKERS, thread_name_prefix="skysub-page"), KeptPages()
    )
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listening = socket.create_server((host, port), family=family, backlog=128)
    except OSError as error:
        watch.close()
        raise OutputError(
            f"the dashboard cannot listen on {host}:{port}: {error.strerror or error}"
        ) from None
    listening.setblocking(False)
    number = listening.getsockname()[1]
    started: dict[str, Any] = {}
    ready = threading.Event()

    def serve() -> None:
        asyncio.set_event_loop(asyncio.new_event_loop())
        loop = tornado.ioloop.IOLoop.current()
        server = tornado.httpserver.HTTPServer(_application(shared))
        server.add_sockets([listening])
        started.update(loop=loop, server=server)
        ready.set()
        loop.start()
        loop.close()

    thread = threading.Thread(target=serve, name="skysub-dashboard", daemon=True)
    thread.start()
    ready.wait()
    named = f"[{host}]" if ":" in host else host
    url = f"http://{named}:{number}/" + (f"?token={word}" if word else "")
    return Dashboard(shared, started["server"], started["loop"], thread, url)


def _application(shared: _Shared) -> tornado.web.Application:
    words = {"shared": shared}
    unit = r"(-?\d+)-(-?\d+)"
    return tornado.web.Application(
        [
            (r"/", _Index, words),
            (r"/visit-(-?\d+)", _Visit, words),
            (rf"/detector-{unit}", _Detector, words),
            (r"/status\.json", _Status, words),
            (r"/visits\.json", _Visits, words),
            (rf"/pixels-{unit}\.png", _Picture, words),
            (rf"/value-{unit}\.json", _Value, words),
            (r"/(dashboard\.css|dashboard\.js)", _Part, words),
        ],
        log_function=lambda _handler: None,
        default_handler_class=_Missing,
        default_handler_args=words,
    )


class _Page(tornado.web.RequestHandler):
    """What all pages share: who may see them, what they may load, and how errors look."""

    def initialize(self, shared: _Shared) -> None:
        self.shared = shared

    def set_default_headers(self) -> None:
        self.set_header("Server", "skysub")
        self.set_header("Content-Security-Policy", _POLICY)
        self.set_header("X-Content-Type-Options", "nosniff")
        self.set_header("Referrer-Policy", "no-referrer")
        self.set_header("Cache-Control", "no-store")

    def prepare(self) -> None:
        token = self.shared.token
        if not token:
            return
        given = self.get_query_argument("token", None)
        if given is not None and hmac.compare_digest(given.encode(), token.encode()):
            # the address bar should not keep the word
            self.set_cookie(_COOKIE, token, httponly=True, samesite="Strict")
            return
        kept = self.get_cookie(_COOKIE) or ""
        if not hmac.compare_digest(kept.encode(), token.encode()):
            raise tornado.web.HTTPError(
                403, "open the address that `skysub dashboard` printed: it has a token"
            )

    async def made(self, make: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        """Work out something in another thread, so that other clicks need not wait."""
        try:
            return await asyncio.get_running_loop().run_in_executor(
                self.shared.pool, lambda: make(*arguments, **named)
            )
        except NotDoneError as error:
            raise tornado.web.HTTPError(404, str(error).replace("%", "%%")) from error
        except (SkysubError, OSError) as error:
            raise tornado.web.HTTPError(503, str(error).replace("%", "%%")) from error

    async def show(self, name: str, values: dict[str, Any]) -> None:
        """Write a page."""
        frame = {"output": self.shared.watch.latest.status.output}
        self.finish(await self.made(environment().get_template(name).render, frame | values))

    def write_error(self, status_code: int, **named: Any) -> None:
        error = named.get("exc_info", (None, None, None))[1]
        known = isinstance(error, tornado.web.HTTPError) and error.log_message
        words = str(error.log_message).replace("%%", "%") if known else self._reason
        page = environment().get_template("dashboard_error.html")
        self.finish(page.render(code=status_code, words=words))

    def log_exception(self, *_: Any) -> None:
        """Say nothing in the terminal: the page says it."""

    def number(self, name: str, default: float | None = None) -> float:
        """A number of the query."""
        text = self.get_query_argument(name, None)
        if text is None and default is not None:
            return default
        try:
            value = float(text or "")
        except ValueError:
            value = float("nan")
        if not abs(value) < float("inf"):
            raise tornado.web.HTTPError(400, f"{name} must be a number")
        return value


class _Index(_Page):
    async def get(self) -> None:
        if self.get_query_argument("token", None) is not None:
            self.redirect("./")
            return
        snapshot = self.shared.watch.latest
        await self.show("dashboard_index.html", await self.made(pages.index_page, snapshot))


class _Visit(_Page):
    async def get(self, visit: str) -> None:
        snapshot, number = self.shared.watch.latest, int(visit)

        def page() -> str:
            values = {"output": snapshot.status.output} | pages.visit_page(snapshot, number)
            return environment().get_template("dashboard_visit.html").render(values)

        key = pages.state_of(snapshot, number)
        self.finish(await self.made(page if key is None else lambda: self.shared.kept.of(key, page)))


class _Detector(_Page):
    async def get(self, visit: str, detector: str) -> None:
        page = await self.made(pages.detector_page, self.shared.watch.latest, int(visit), int(detector))
        await self.show("dashboard_detector.html", page)


class _Status(_Page):
    async def get(self) -> None:
        self.finish(await self.made(pages.progress_of, self.shared.watch.latest))


class _Visits(_Page):
    async def get(self) -> None:
        first = max(0, int(self.number("first", 0)))
        wanted = self.get_query_argument("wanted", "")
        rows = await self.made(pages.visit_rows, self.shared.watch.latest, first=first, wanted=wanted)
        self.finish(rows)


class _Picture(_Page):
    async def get(self, visit: str, detector: str) -> None:
        stretch = self.get_query_argument("stretch", STRETCHES[0])
        if stretch not in STRETCHES:
            raise tornado.web.HTTPError(400, f"stretch must be one of {', '.join(STRETCHES)}")
        limits = None
        if self.get_query_argument("low", ""):
            limits = self.number("low"), self.number("high")
        data, (low, high) = await self.made(self._drawn, int(visit), int(detector), stretch, limits)
        self.set_header("Content-Type", "image/png")
        self.set_header("X-Low", f"{low:.9g}")
        self.set_header("X-High", f"{high:.9g}")
        self.finish(data)

    def _drawn(
        self, visit: int, detector: int, stretch: str, limits: tuple[float, float] | None
    ) -> tuple[bytes, tuple[float, float]]:
        layer = self.get_query_argument("layer")
        values = self.shared.pixels.of(self.shared.watch.latest.campaign, visit, detector, layer)
        (y0, y1), (x0, x1) = (
            self._range(axis, length) for axis, length in zip("yx", values.shape, strict=True)
        )
        size = [int(min(max(self.number(name, 512), 1), 2048)) for name in ("height", "width")]
        return picture(values, Window(slice(y0, y1), slice(x0, x1), *size), stretch, limits)

    def _range(self, axis: str, length: int) -> tuple[int, int]:
        low, high = int(self.number(f"{axis}0", 0)), int(self.number(f"{axis}1", length))
        low = min(max(low, 0), length - 1)
        return low, min(max(high, low + 1), length)


class _Value(_Page):
    async def get(self, visit: str, detector: str) -> None:
        self.finish(await self.made(self._read, int(visit), int(detector)))

    def _read(self, visit: int, detector: int) -> dict[str, Any]:
        layer = self.get_query_argument("layer")
        values = self.shared.pixels.of(self.shared.watch.latest.campaign, visit, detector, layer)
        y, x = int(self.number("y")), int(self.number("x"))
        if not (0 <= y < values.shape[0] and 0 <= x < values.shape[1]):
            raise NotDoneError(f"there is no pixel x = {x}, y = {y}")
        value = values[y, x]
        if values.dtype.kind == "i":
            return {"value": str(int(value))}
        return {"value": "nothing known" if value != value else f"{float(value):.7g}"}  # noqa: PLR0124


class _Part(_Page):
    def get(self, name: str) -> None:
        kind = "text/css" if name.endswith("css") else "text/javascript"
        self.set_header("Content-Type", f"{kind}; charset=utf-8")
        text = template_text(name)
        self.finish(template_text("report.css") + text if name.endswith("css") else text)


class _Missing(_Page):
    def prepare(self) -> None:
        super().prepare()
        raise tornado.web.HTTPError(404, "there is no such page")
