"""Text from outside, such as names of files, made safe to print."""

from __future__ import annotations

import logging
import re
from typing import Any

__all__ = ["LogFormat", "printable", "without_password"]

_PASSWORD = re.compile(r"(?<=://)[^/?#\s]*@")


def printable(text: object) -> str:
    r"""Text in which nothing but letters, signs and blanks is left as it is; the rest is escaped.

    Control characters (terminals obey them), line ends, invisible marks that turn the direction of
    writing, and bytes of a file's name that are no UTF-8 become ``\x1b``, ``\u202e`` or ``\xe9``.
    """
    shown = str(text)
    return shown if shown.isprintable() else "".join(_shown(letter) for letter in shown)


def without_password(text: object) -> str:
    """Text whose URLs have lost what stands before the host: a user's name and a password."""
    return _PASSWORD.sub("", str(text))


def _shown(letter: str) -> str:
    if letter.isprintable():
        return letter
    # how Python keeps a byte that it cannot decode
    if "\udc80" <= letter <= "\udcff":
        return f"\\x{ord(letter) - 0xDC00:02x}"
    return letter.encode("unicode_escape").decode("ascii")


class LogFormat(logging.Formatter):
    """Lines of a log: what a message quotes is made safe to print, the lines of a traceback stay lines."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:
        """Return the line of a record."""
        return printable(super().formatMessage(record))

    def formatException(self, ei: Any) -> str:
        """Return the traceback of a record."""
        return "\n".join(printable(line) for line in super().formatException(ei).split("\n"))
