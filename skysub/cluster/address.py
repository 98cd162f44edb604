"""A Dask scheduler that is running already, whose workers come and go as they like."""

from __future__ import annotations

import json
import os
import ssl
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from skysub.cluster.base import Demand, Profile, started
from skysub.cluster.limits import allow_open_files
from skysub.cluster.workers import GatedWorkers, Workers
from skysub.errors import ClusterError, RecipeError

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["AddressProfile", "Encryption", "borrowed"]

_SCHEDULER_WAIT = 15
"""Seconds that a scheduler has to answer; its workers may come later."""


class Encryption(BaseModel):
    """Files of TLS by which coordinator, scheduler and workers know each other."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    ca_file: str = ""
    """Certificate of the authority that signed the others, PEM."""
    cert_file: str = ""
    """Certificate of this client, PEM."""
    key_file: str = ""
    """Its private key, PEM."""

    def security(self) -> Any:
        """Return what Dask takes; None where nothing is given, so that Dask's own configuration holds.

        Raises
        ------
        ClusterError
            When a file is missing, or is not what it must be.
        """
        from distributed.security import Security

        given = {name: getattr(self, name) for name in ("ca_file", "cert_file", "key_file")}
        if not any(given.values()):
            return None
        for name, path in given.items():
            if not path:
                raise ClusterError(
                    f"cluster.tls.{name} is missing: TLS needs ca_file, cert_file and key_file"
                )
            if not Path(path).expanduser().is_file():
                raise ClusterError(f"cluster.tls.{name}: there is no file {path}")
        ca, cert, key = (str(Path(path).expanduser()) for path in given.values())
        try:
            context = ssl.create_default_context(cafile=ca)
            context.load_cert_chain(cert, key)
        except (OSError, ssl.SSLError) as error:
            raise ClusterError(
                f"cluster.tls: {cert} and {key} are no certificate and key of one another, or {ca} is no "
                f"certificate ({error}): give PEM files that belong together"
            ) from None
        for path in (ca, cert):
            _refuse_expired(path)
        return Security(tls_ca_file=ca, tls_client_cert=cert, tls_client_key=key, require_encryption=True)


class AddressProfile(Profile):
    """A scheduler that is running: by its address, its scheduler file, or DASK_SCHEDULER_ADDRESS."""

    kind: Literal["address"] = "address"
    address: str = ""
    """Address of the scheduler, as tcp://HOST:8786 or tls://HOST:8786."""
    scheduler_file: str = ""
    """File that ``dask scheduler --scheduler-file`` wrote."""
    tls: Encryption = Encryption()
    """Certificates, where the scheduler asks for them; empty: as Dask's own configuration says."""
    patience: float = Field(60, gt=0)
    """Seconds to wait for a first worker; for the scheduler itself 15 at most."""

    @property
    def where(self) -> str:
        """Address of the scheduler."""
        return f"{self.kind}, {self._found()}"

    def check(self) -> None:
        """Look at where the scheduler is."""
        self._found()

    def slots(self, demand: Demand) -> int:  # noqa: ARG002 - the scheduler alone knows
        """Return 0: the scheduler alone knows."""
        return 0

    @contextmanager
    def open(self, demand: Demand) -> Iterator[Workers]:
        """Connect to the scheduler."""
        from distributed import Client

        allow_open_files(0)
        address, security = self._found(), self.tls.security()
        wait = min(_SCHEDULER_WAIT, self.patience)

        def connect() -> Client:
            options = {} if security is None else {"security": security}
            try:
                return Client(address, timeout=wait, set_as_default=False, **options)
            except TypeError:
                # what Dask raises where a tls:// address meets no certificate at all
                raise ClusterError(
                    f"{address} speaks TLS, and there is no certificate to answer with: give "
                    "cluster.tls.ca_file, "
                    "cluster.tls.cert_file and cluster.tls.key_file"
                ) from None
            except OSError as error:
                raise ClusterError(
                    f"no Dask cluster to work on: {_reason(error)}: {_cure(address)}"
                ) from error

        with started(connect) as client:
            yield GatedWorkers(
                client,
                f"the workers at {address}",
                demand,
                patience=self.patience,
                cure=f"start some, as by `dask worker {address}`",
                check_scheduler=True,
            )

    def _found(self) -> str:
        """Address of the scheduler.

        Raises
        ------
        RecipeError
            When none is given, or the scheduler file is not there.
        """
        if self.address:
            return self.address
        if self.scheduler_file:
            path = Path(self.scheduler_file).expanduser()
            try:
                return str(json.loads(path.read_text())["address"])
            except (OSError, ValueError, KeyError, TypeError) as error:
                raise RecipeError(
                    f"cluster.scheduler_file: {path} cannot be read as what `dask scheduler "
                    "--scheduler-file` "
                    f"writes ({type(error).__name__}): start the scheduler first"
                ) from None
        inherited = os.environ.get("DASK_SCHEDULER_ADDRESS", "")
        if not inherited:
            raise RecipeError(
                "cluster.address is missing: --set cluster.address=tcp://HOST:8786, or "
                "cluster.scheduler_file, or "
                "DASK_SCHEDULER_ADDRESS in the environment"
            )
        return inherited


@contextmanager
def borrowed(client: Any, demand: Demand) -> Iterator[Workers]:
    """Workers of a client that somebody else opened, and that stays open.

    Raises
    ------
    ClusterError
        When it cannot be asked from here.
    """
    if client.asynchronous:
        raise ClusterError("a campaign needs a Dask client that is not asynchronous")
    yield GatedWorkers(
        client,
        "the workers of the given client",
        demand,
        patience=AddressProfile.model_fields["patience"].default,
        cure="start some first",
    )


def _refuse_expired(path: str) -> None:
    """Refuse a certificate whose time is over, which the other side would only turn away.

    Raises
    ------
    ClusterError
        When it is.
    """
    try:
        from cryptography import x509
    except ImportError:
        # the connection will fail, with fewer words
        return
    end = x509.load_pem_x509_certificate(Path(path).read_bytes()).not_valid_after_utc
    if end.timestamp() < time.time():
        raise ClusterError(f"cluster.tls: {path} expired on {end:%Y-%m-%d}: have a new one made")


def _reason(error: BaseException) -> str:
    """What a connection failed of: the error of TLS below, where there is one."""
    below: BaseException | None = error
    while below is not None:
        if isinstance(below, ssl.SSLError):
            return (
                f"TLS is refused ({below.reason or below}; {getattr(below, 'verify_message', '') or below})"
            )
        below = below.__cause__ or below.__context__
    return " ".join(str(error).split())


def _cure(address: str) -> str:
    if address.startswith("tls://"):
        return "see that its certificate and cluster.tls are of one authority, and not expired"
    return "is `dask scheduler` running there? Else give its address by --set cluster.address=tcp://HOST:8786"
