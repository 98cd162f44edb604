"""A server on this machine that speaks S3, and an address for a campaign there."""

import contextlib
import hashlib
import json

import pytest


@pytest.fixture(scope="session")
def s3_server():
    """A server on this machine that speaks S3, with a bucket "night"."""
    pytest.importorskip("moto.moto_server", reason="moto and flask are not installed: pip install '.[dev]'")
    pytest.importorskip("botocore", reason="botocore is not installed: pip install '.[s3]'")
    from tests.campaign.store.s3_server import Server

    server = Server()
    server.start()
    yield server
    server.stop()


@pytest.fixture
def server(s3_server, monkeypatch):
    """The server, as this process and those started from it are told to use."""
    from skysub.campaign.store import s3_client

    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_server.url)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    s3_client.client.cache_clear()
    with contextlib.suppress(s3_client.client().exceptions.BucketAlreadyOwnedByYou):
        s3_client.client().create_bucket(Bucket="night")
    yield s3_server
    s3_server.before = s3_server.fault = None
    s3_client.client.cache_clear()


@pytest.fixture
def url(server, request):  # noqa: ARG001 - the server must be there
    """Address of a campaign that is not there yet."""
    return f"s3://night/{hashlib.sha256(request.node.nodeid.encode()).hexdigest()[:12]}/out"


@pytest.fixture
def reader(server):
    """Key and secret of a user who may only read."""
    from botocore.session import Session

    iam = Session().create_client("iam", endpoint_url=server.url)
    iam.create_user(UserName="reader")
    allowed = {"Effect": "Allow", "Action": ["s3:GetObject", "s3:ListBucket"], "Resource": "*"}
    policy = json.dumps({"Version": "2012-10-17", "Statement": [allowed]})
    iam.put_user_policy(UserName="reader", PolicyName="read", PolicyDocument=policy)
    key = iam.create_access_key(UserName="reader")["AccessKey"]
    yield key["AccessKeyId"], key["SecretAccessKey"]
    iam.delete_access_key(UserName="reader", AccessKeyId=key["AccessKeyId"])
    iam.delete_user_policy(UserName="reader", PolicyName="read")
    iam.delete_user(UserName="reader")
