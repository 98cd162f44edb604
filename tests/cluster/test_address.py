"""A scheduler that asks for certificates: who comes in, and what is said to those who do not."""

import datetime as dt
import time

import pytest
from distributed import LocalCluster
from distributed.security import Security

from skysub.cluster import Demand, connected, load_profile
from skysub.errors import ClusterError

x509 = pytest.importorskip("cryptography.x509")

from cryptography.hazmat.primitives import hashes, serialization  # noqa: E402
from cryptography.hazmat.primitives.asymmetric import ec  # noqa: E402


class Authority:
    """Certificates in a folder, signed by one authority."""

    def __init__(self, folder):
        folder.mkdir()
        self.folder, self.key = folder, ec.generate_private_key(ec.SECP256R1())
        self.ca = self._write("ca", self.key, days=30, authority=True)
        self.made = {}

    def files(self, name="peer", *, days=30):
        """Paths of the authority's certificate, of a certificate and of its key."""
        if name not in self.made:
            key = ec.generate_private_key(ec.SECP256R1())
            kept = self.folder / f"{name}-key.pem"
            kept.write_bytes(
                key.private_bytes(
                    serialization.Encoding.PEM,
                    serialization.PrivateFormat.PKCS8,
                    serialization.NoEncryption(),
                )
            )
            self.made[name] = {
                "ca_file": str(self.ca),
                "cert_file": str(self._write(name, key, days=days)),
                "key_file": str(kept),
            }
        return self.made[name]

    def _write(self, name, key, *, days, authority=False):
        now = dt.datetime.now(dt.UTC)
        end = now + dt.timedelta(days=days)
        subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
        issuer = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "ca")])
        made = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(min(now, end) - dt.timedelta(days=1))
            .not_valid_after(end)
            .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
            .sign(self.key, hashes.SHA256())
        )
        path = self.folder / f"{name}.pem"
        path.write_bytes(made.public_bytes(serialization.Encoding.PEM))
        return path


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("tls") / "ours")


@pytest.fixture(scope="module")
def address(authority):
    files = authority.files()
    security = Security(
        tls_ca_file=files["ca_file"],
        require_encryption=True,
        **{f"tls_{who}_cert": files["cert_file"] for who in ("client", "scheduler", "worker")},
        **{f"tls_{who}_key": files["key_file"] for who in ("client", "scheduler", "worker")},
    )
    with LocalCluster(
        n_workers=1,
        threads_per_worker=2,
        processes=False,
        host="127.0.0.1",
        protocol="tls",
        security=security,
        dashboard_address="127.0.0.1:0",
    ) as cluster:
        yield cluster.scheduler_address


def opened(address, **tls):
    profile = load_profile({"profile": "address", "address": address, "patience": 30, "tls": tls})
    return connected(profile, Demand(2**20, 1))


def test_who_has_a_certificate_comes_in(address, authority):
    with opened(address, **authority.files("client")) as workers:
        deadline = time.monotonic() + 60
        while not workers.slots and time.monotonic() < deadline:
            workers.look()
            time.sleep(0.05)
        assert workers.slots == 2


def test_who_has_none_is_told_what_is_missing(address):
    with pytest.raises(ClusterError, match=r"speaks TLS.*cluster\.tls\.ca_file"), opened(address):
        pass


def test_certificates_that_are_no_good(address, authority, tmp_path):
    strangers = Authority(tmp_path / "strangers").files()
    words = r"no Dask cluster to work on: .*of one authority"
    with pytest.raises(ClusterError, match=words), opened(address, **strangers):
        pass
    files = authority.files("client")
    missing = files | {"key_file": str(tmp_path / "none.pem")}
    with (
        pytest.raises(ClusterError, match=r"cluster\.tls\.key_file: there is no file"),
        opened(address, **missing),
    ):
        pass
    half = {"ca_file": files["ca_file"]}
    with pytest.raises(ClusterError, match=r"cluster\.tls\.cert_file is missing"), opened(address, **half):
        pass
    mixed = files | {"key_file": authority.files("other")["key_file"]}
    with (
        pytest.raises(ClusterError, match="are no certificate and key of one another"),
        opened(address, **mixed),
    ):
        pass


def test_an_expired_certificate_is_called_that(address, authority):
    expired = authority.files("expired", days=-2)
    with pytest.raises(ClusterError, match=r"expired\.pem expired on 20\d\d-"), opened(address, **expired):
        pass
