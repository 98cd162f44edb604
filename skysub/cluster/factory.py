"""A cluster class of Dask by its module and name, as a site's file for dask-labextension has it."""

from __future__ import annotations

import importlib
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from skysub.cluster.base import Demand, Profile
from skysub.cluster.limits import allow_open_files
from skysub.cluster.scaled import scaled_cluster
from skysub.errors import ClusterError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from skysub.cluster.workers import Workers

__all__ = ["FactoryProfile"]


class Factory(BaseModel):
    """What is called to make the cluster."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    module: str
    """Module that is imported."""
    class_name: str = Field(alias="class")
    """Class in it."""
    args: tuple[Any, ...] = ()
    """Arguments of the class by position."""
    kwargs: dict[str, Any] = Field(default_factory=dict)
    """Arguments of the class by name."""


class Adapt(BaseModel):
    """Between how many workers the cluster may have."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    minimum: int = Field(0, ge=0)
    """Workers that are kept when there is nothing to do."""
    maximum: int = Field(10, gt=0)
    """Workers at most."""


class Default(BaseModel):
    """How many workers a cluster is given."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    workers: int | None = None
    """Workers of a cluster whose size is fixed."""
    adapt: Adapt | None = None
    """Limits of a cluster that grows and shrinks: `minimum` and `maximum` workers."""


class FactoryProfile(Profile):
    """A cluster class of Dask; what a site wrote for dask-labextension serves as it stands."""

    kind: Literal["factory"] = "factory"
    factory: Factory
    """What is called to make the cluster."""
    default: Default = Default()
    """How many workers it is given."""
    initial: tuple[Any, ...] = ()
    """Clusters that JupyterLab starts by itself; of no meaning here."""
    patience: float = Field(900, gt=0)
    """Seconds to wait for a first worker."""

    @property
    def most(self) -> int:
        """Workers at most."""
        if self.default.adapt is not None:
            return self.default.adapt.maximum
        return self.default.workers or Adapt.model_fields["maximum"].default

    def slots(self, demand: Demand) -> int:  # noqa: ARG002 - the class alone knows
        """Return 0: how many threads a worker has is known to the class alone."""
        return 0

    @contextmanager
    def open(self, demand: Demand) -> Iterator[Workers]:
        """Call the class."""
        made = self.factory
        try:
            cluster_class = getattr(importlib.import_module(made.module), made.class_name)
        except (ImportError, AttributeError) as error:
            raise ClusterError(
                f"cluster.factory: {made.module}.{made.class_name} cannot be imported ({error}): "
                "install it, or "
                "correct module and class"
            ) from None
        allow_open_files(self.most)
        with scaled_cluster(
            lambda: cluster_class(*made.args, **made.kwargs),
            f"{made.class_name}, {self.most} workers at most",
            demand,
            most=self.most,
            units_of_worker=1,
            patience=self.patience,
            cure=f"see what {made.class_name} says of its workers",
        ) as workers:
            yield workers
