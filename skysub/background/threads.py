"""Share rows among threads; the kernels release the GIL."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["in_threads"]


def in_threads(work: Callable[[range], None], n: int | range, threads: int) -> None:
    """Call ``work`` on ranges that make up ``n``, or ``range(n)``, in ``threads`` threads at most."""
    whole = n if isinstance(n, range) else range(n)
    threads = max(1, min(threads, len(whole)))
    if threads == 1:
        work(whole)
        return
    cuts = [whole.start + len(whole) * i // threads for i in range(threads + 1)]
    with ThreadPoolExecutor(threads - 1) as pool:
        others = [pool.submit(work, range(a, b)) for a, b in pairwise(cuts[1:])]
        work(range(cuts[0], cuts[1]))
        for other in others:
            other.result()
