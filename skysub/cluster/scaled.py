"""Workers of a cluster object of Dask, which starts and ends them itself when it is told their number."""

from __future__ import annotations

import math
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from skysub.cluster.base import started
from skysub.cluster.workers import GatedWorkers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from distributed import Client

    from skysub.cluster.base import Demand
    from skysub.cluster.workers import Workers

__all__ = ["scaled_cluster"]


@contextmanager
def scaled_cluster(
    start: Callable[[], Any],
    described: str,
    demand: Demand,
    *,
    most: int,
    units_of_worker: int,
    patience: float,
    cure: str,
) -> Iterator[Workers]:
    """Start a cluster object, and keep as many workers as there are units for; it ends with the block.

    Parameters
    ----------
    start
        Makes the cluster object: it has ``scale``, and a client connects to it.
    described, demand, patience, cure
        As `skysub.cluster.workers.GatedWorkers` has them.
    most
        Workers at most.
    units_of_worker
        Units that one worker does at once.
    """
    from distributed import Client

    with started(start) as cluster, Client(cluster, set_as_default=False) as client:
        workers = _ScaledWorkers(
            client, described, demand, cluster, (most, units_of_worker), patience=patience, cure=cure
        )
        workers.need(demand.units, 0)
        yield workers


class _ScaledWorkers(GatedWorkers):
    def __init__(
        self,
        client: Client,
        described: str,
        demand: Demand,
        cluster: Any,
        limits: tuple[int, int],
        **options: Any,
    ) -> None:
        super().__init__(client, described, demand, check_scheduler=True, **options)
        self._cluster = cluster
        self._most, self._units_of_worker = limits
        self._scaled = 0

    def need(self, units: int, done: int) -> None:  # noqa: ARG002 - that of every kind
        """Scale the cluster, where the number of workers that there are units for is another one."""
        wanted = min(self._most, math.ceil(units / self._units_of_worker))
        # at the end the object takes them all; a worker fewer now and then is not worth a request
        if wanted > self._scaled or (wanted and wanted <= self._scaled // 2):
            self._cluster.scale(wanted)
            self._scaled = wanted
