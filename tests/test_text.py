import pickle

import pytest

from skysub.errors import MaskPlaneError, VisitFileError
from skysub.text import printable, without_password


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("visit 7, r: déjà 星.fits", "visit 7, r: déjà 星.fits"),
        ("\x1b[2J\r\n\tx", r"\x1b[2J\r\n\tx"),
        ("\x7f\x9b\u2028\u202e\ufeff", r"\x7f\x9b\u2028\u202e\ufeff"),
        ("\udce9\udcff\ud800", r"\xe9\xff\ud800"),
        ("\U000e0001", r"\U000e0001"),
    ],
)
def test_what_is_no_letter_or_sign_is_escaped(given, shown):
    assert printable(given) == shown
    assert printable(given).isprintable()
    printable(given).encode("utf-8")


def test_messages_of_errors_are_printable():
    assert str(VisitFileError("a\x1b: b\nc")) == r"a\x1b: b\nc"
    assert str(MaskPlaneError("a\x1b")) == r"a\x1b"
    assert str(pickle.loads(pickle.dumps(VisitFileError("a\x1b")))) == r"a\x1b"


def test_passwords_are_left_out_of_urls():
    text = 'no answer from "http://user:pa:ss@host:9000/b@c" nor https://host/x@y'
    assert without_password(text) == 'no answer from "http://host:9000/b@c" nor https://host/x@y'
