"""Files at URLs, through fsspec: opened for reading in small steps, put there as a whole."""

from __future__ import annotations

from typing import Any

from skysub.errors import VisitFileError, VisitFileNotFoundError, how_to_install

__all__ = ["exists", "is_remote", "open_remote", "put"]

_STEP = 64 * 2880
"""Bytes read ahead: headers are a few blocks here and there, and pixels are asked for as a whole."""


def is_remote(path: str) -> bool:
    """Whether a path is a URL, to be opened through fsspec."""
    return "://" in path


def open_remote(url: str) -> Any:
    """Open a URL for reading bytes.

    Raises
    ------
    VisitFileNotFoundError
        When there is nothing there.
    VisitFileError
        When it cannot be opened, or the package for its kind of URL is missing.
    """
    try:
        store, place = _store(url)
        return store.open(place, "rb", block_size=_STEP)
    except VisitFileError:
        raise
    except FileNotFoundError as error:
        raise VisitFileNotFoundError(f"{url}: there is no such file") from error
    # stores have errors of their own for credentials, addresses and the like
    except Exception as error:
        raise VisitFileError(f"{url}: cannot be opened: {error}") from error


def exists(url: str) -> bool:
    """Whether there is something at a URL.

    Raises
    ------
    VisitFileError
        When that cannot be told, or the package for its kind of URL is missing.
    """
    try:
        store, place = _store(url)
        return bool(store.exists(place))
    except VisitFileError:
        raise
    except Exception as error:
        raise VisitFileError(f"{url}: cannot be reached: {error}") from error


def put(local: str, url: str) -> None:
    """Copy a local file to a URL, where it appears when it is complete.

    Raises
    ------
    VisitFileError
        When it cannot be written, or the package for its kind of URL is missing.
    """
    try:
        store, place = _store(url)
        store.put_file(local, place)
    except VisitFileError:
        raise
    except Exception as error:
        raise VisitFileError(f"{url}: cannot be written: {error}") from error


def _store(url: str) -> tuple[Any, str]:
    try:
        from fsspec.core import url_to_fs

        store, place = url_to_fs(url)
    except ImportError as error:
        raise VisitFileError(f"{url}: {error}; for s3:// {how_to_install('s3')}") from error
    return store, str(place)
