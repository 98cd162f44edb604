"""A cluster that Dask Gateway starts, as JupyterHubs for many users have it."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from skysub.cluster.base import Demand, Profile
from skysub.cluster.limits import allow_open_files
from skysub.cluster.scaled import scaled_cluster
from skysub.errors import MissingPackageError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from skysub.cluster.workers import Workers

__all__ = ["GatewayProfile"]


class GatewayProfile(Profile):
    """A cluster of Dask Gateway. It was never run by skysub's own tests."""

    kind: Literal["gateway"] = "gateway"
    address: str = ""
    """Address of the gateway; empty: that of Dask's configuration (``gateway.address``)."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Options of a new cluster, as the site names them: image, worker_cores, worker_memory, ..."""
    workers: int = Field(10, gt=0)
    """Workers at most."""
    threads: int = Field(1, gt=0)
    """Threads of a worker, as the site's options make them."""
    patience: float = Field(900, gt=0)
    """Seconds to wait for a first worker."""

    def slots(self, demand: Demand) -> int:
        """Threads of all workers; their memory is looked at when they come."""
        return min(self.workers * self.threads, demand.units)

    @contextmanager
    def open(self, demand: Demand) -> Iterator[Workers]:
        """Have the gateway start a cluster."""
        try:
            from dask_gateway import Gateway
        except ImportError:
            raise MissingPackageError(
                "a cluster of Dask Gateway needs its client: pip install dask-gateway, in the site's version"
            ) from None
        allow_open_files(self.workers)
        with scaled_cluster(
            lambda: Gateway(self.address or None).new_cluster(**self.options),
            f"Dask Gateway {self.address}".rstrip(),
            demand,
            most=self.workers,
            units_of_worker=self.threads,
            patience=self.patience,
            cure="see what the gateway says of the cluster, and the options that the site allows",
        ) as workers:
            yield workers
