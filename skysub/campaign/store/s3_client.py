"""Requests to an S3 server: settings as s3fs has them, patience while it is away, errors that help."""

from __future__ import annotations

import functools
import logging
import random
import time
from typing import TYPE_CHECKING, Any

from skysub.errors import OutputError, how_to_install
from skysub.text import without_password

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["AbsentError", "ChangedError", "DamagedAnswerError", "client", "request"]

_LOG = logging.getLogger("skysub.campaign")

PATIENCE = 120.0
"""Seconds for which a server that has answered before may be away."""

_FIRST_PATIENCE = 6.0
"""Seconds for which a server that never answered is tried: its address may well be wrong."""

_MOST_SPOILT = 10
"""Answers that may arrive damaged, one after the other."""

_ABSENT = {"NoSuchKey", "404", "NotFound"}
_CHANGED = {"PreconditionFailed", "412"}
_PASSING = {
    "ConditionalRequestConflict",
    "InternalError",
    "OperationAborted",
    "RequestTimeout",
    "ServiceUnavailable",
    "SlowDown",
    "Throttling",
    "ThrottlingException",
    "TooManyRequests",
}
_BUSY = {409, 429, 500, 502, 503, 504}
_CREDENTIALS = {
    "AuthFailure",
    "ExpiredToken",
    "InvalidAccessKeyId",
    "InvalidClientTokenId",
    "InvalidToken",
    "SignatureDoesNotMatch",
    "TokenRefreshRequired",
    "UnrecognizedClientException",
}
_DENIED = {"AccessDenied", "AllAccessDisabled", "AccountProblem", "403", "Forbidden"}
_NOT_ENOUGH = {"QuotaExceeded", "XMinioStorageFull", "InsufficientStorage", "507"}

_GO_ON = "What is done is safe: mend it and start the same command again"


class AbsentError(Exception):
    """There is no such object."""


class ChangedError(Exception):
    """The object is not in the state that a write was conditional on."""


class DamagedAnswerError(Exception):
    """What arrived is not what the server sent."""


@functools.lru_cache(maxsize=1)
def client() -> Any:
    """Client of this process: settings from fsspec's configuration for s3, else AWS's environment and files.

    Raises
    ------
    OutputError
        When botocore is not installed, or its configuration is no good.
    """
    try:
        from botocore import UNSIGNED
        from botocore.config import Config
        from botocore.exceptions import BotoCoreError
        from botocore.session import Session
        from fsspec.config import conf
    except ImportError as error:
        raise OutputError(f"{error}; for campaigns at s3:// {how_to_install('s3')}") from None
    given = dict(conf.get("s3", {}))
    options: dict[str, Any] = dict(given.get("client_kwargs") or {})
    for name, option in (
        ("key", "aws_access_key_id"),
        ("secret", "aws_secret_access_key"),
        ("token", "aws_session_token"),
        ("endpoint_url", "endpoint_url"),
        ("use_ssl", "use_ssl"),
    ):
        if given.get(name) is not None:
            options[name if name == option else option] = given[name]
    settings: dict[str, Any] = {
        "connect_timeout": 10,
        "read_timeout": 60,
        "max_pool_connections": 32,
        "tcp_keepalive": True,
        **(given.get("config_kwargs") or {}),
        # `request` is patient for much longer, and counts all of it
        "retries": {"total_max_attempts": 1},
    }
    if given.get("anon"):
        settings["signature_version"] = UNSIGNED
    try:
        return Session(profile=given.get("profile")).create_client("s3", config=Config(**settings), **options)
    except (BotoCoreError, ValueError) as error:
        raise OutputError(f"the settings for s3:// are no good: {without_password(error)}") from None


def request(act: Callable[[Any], Any], url: str, doing: str) -> Any:
    """Make a request, again and again while the server is away or busy.

    Parameters
    ----------
    act
        Takes the client, makes the request and reads the answer.
    url
        What it is about, for messages.
    doing
        "read" or "written", for messages.

    Raises
    ------
    AbsentError
        When there is no such object.
    ChangedError
        When a condition on the object does not hold.
    OutputError
        When it cannot be done; the message says what to do.
    """
    # says what to do where botocore is missing
    client()
    from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError
    from botocore.exceptions import ConnectionError as NoConnectionError
    from urllib3.exceptions import HTTPError

    damaged, spoilt = _damaged(), 0
    began, pause = time.monotonic(), 0.1
    while True:
        try:
            answer = act(client())
        except ClientError as error:
            _Server.answered = True
            code = str(error.response.get("Error", {}).get("Code", ""))
            status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
            if code in _ABSENT:
                raise AbsentError from None
            if code in _CHANGED:
                raise ChangedError from None
            passing = code in _PASSING or status in _BUSY
            if not passing or time.monotonic() - began > PATIENCE:
                raise OutputError(_refused(error, code, url, doing)) from None
            why = code or str(status)
        # an answer may break off in its headers or its body, or arrive with other bytes
        except (HTTPClientError, NoConnectionError, HTTPError, *damaged) as error:
            why = _why(error)
            spoilt += isinstance(error, damaged)
            if spoilt >= _MOST_SPOILT:
                raise OutputError(
                    f"{url} cannot be {doing}: {_endpoint()} has given {spoilt} answers that are damaged "
                    f"or none of S3's ({why}). {_GO_ON}"
                ) from None
            away = time.monotonic() - began
            if away > (PATIENCE if _Server.answered else min(PATIENCE, _FIRST_PATIENCE)):
                # whatever else is asked of it need not wait as long
                _Server.answered = False
                raise OutputError(
                    f"{url} cannot be {doing}: {_endpoint()} has not answered for {away:.0f} s ({why}). "
                    "Check the network and the address (AWS_ENDPOINT_URL). What is done is safe: start the "
                    "same command again"
                ) from None
        except BotoCoreError as error:
            raise OutputError(f"{url} cannot be {doing}: {without_password(_unsent(error))}") from None
        else:
            _Server.answered = True
            return answer
        _LOG.warning("%s: %s; trying again", url, why)
        # not all workers at once
        time.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311
        pause = min(2 * pause, 5.0)


def _damaged() -> tuple[type[Exception], ...]:
    """What is raised where an answer is not whole: checks that fail, and fields that are missing or odd."""
    from botocore.exceptions import FlexibleChecksumError, IncompleteReadError
    from botocore.parsers import ResponseParserError

    return (
        DamagedAnswerError,
        FlexibleChecksumError,
        IncompleteReadError,
        ResponseParserError,
        KeyError,
        TypeError,
        ValueError,
    )


def _why(error: Exception) -> str:
    text = without_password(" ".join(str(error).split()))
    return f"the answer lacks {text}" if isinstance(error, KeyError) else text


class _Server:
    answered = False


def _endpoint() -> str:
    return without_password(client().meta.endpoint_url)


def _refused(error: Any, code: str, url: str, doing: str) -> str:
    message = without_password(" ".join(str(error.response.get("Error", {}).get("Message", "")).split()))
    answer = f"{code}: {message}" if message and message != code else code
    bucket = url.removeprefix("s3://").partition("/")[0]
    if code == "NoSuchBucket":
        return (
            f"{url} cannot be {doing}: there is no bucket {bucket!r} at {_endpoint()}. Make it, or correct "
            "the address; AWS_ENDPOINT_URL says which server is asked"
        )
    if code in _CREDENTIALS:
        return (
            f"{url} cannot be {doing}: {_endpoint()} does not accept the credentials ({answer}). Check "
            "AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN, or AWS_PROFILE"
        )
    if code in _DENIED:
        return (
            f"{url} cannot be {doing}: permission denied ({answer}). A campaign needs s3:ListBucket, "
            "s3:GetObject, s3:PutObject and s3:DeleteObject there; reading needs the first two. "
            f"{_GO_ON}"
        )
    if code in _NOT_ENOUGH:
        return f"{url} cannot be {doing}: there is no space left ({answer}). {_GO_ON}"
    return f"{url} cannot be {doing}: {answer or error}. {_GO_ON}"


def _unsent(error: Any) -> str:
    from botocore.exceptions import NoCredentialsError, PartialCredentialsError

    if isinstance(error, (NoCredentialsError, PartialCredentialsError)):
        return f"{str(error).rstrip('.')}. Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"
    return f"{error}. {_GO_ON}"
