"""Where the result of one image goes, and that nothing is lost there."""

from __future__ import annotations

from pathlib import Path

__all__ = ["check_free", "stem_of", "target_of"]

_ENDINGS = (".gz", ".bz2", ".xz", ".fz", ".fits", ".fit", ".fts")
"""What is taken off a file's name before the new ending is put on."""


def target_of(image: str, output: str | None, added: str, *, several: bool) -> str:
    """Path or URL for the result of one image: its name with ``added``, beside it or in a folder.

    Parameters
    ----------
    output
        A FITS file, a folder (made where it is not there), or None: beside the image.
    several
        Whether more than one result is to be written.

    Raises
    ------
    ConfigError
        When ``output`` is one file, and there are several results.
    OutputError
        When the folder cannot be made.
    """
    from skysub.errors import ConfigError, OutputError

    folder, slash, name = image.rpartition("/")
    beside = f"{stem_of(name)}{added}.fits"
    if output is None:
        return folder + slash + beside
    remote = "://" in output
    if not remote and Path(output).is_dir():
        return str(Path(output) / beside)
    if output.lower().endswith((".fits", ".fit", ".fts")):
        if several:
            raise ConfigError(f"-o {output} is one file, and there are several to write: give a folder")
        return output
    if not remote:
        try:
            Path(output).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"-o {output}: the folder cannot be made: {error.strerror or error}") from error
    return f"{output.rstrip('/')}/{beside}"


def stem_of(name: str) -> str:
    """Name of a file without the endings of FITS and of packers."""
    while True:
        ending = next(
            (each for each in _ENDINGS if name.lower().endswith(each) and len(name) > len(each)), ""
        )
        if not ending:
            return name
        name = name[: -len(ending)]


def check_free(image: str, target: str, *, overwrite: bool) -> None:
    """Refuse to write over the image itself, or over anything without being told to.

    Raises
    ------
    OutputError
        When that would happen.
    """
    from skysub.errors import OutputError
    from skysub.visit.fits.remote import exists, is_remote

    if is_remote(target):
        same, there = image == target, exists(target)
    else:
        place = Path(target)
        there = place.exists()
        same = there and not is_remote(image) and Path(image).exists() and place.samefile(image)
    if same:
        raise OutputError(f"{image}: the output would be the image itself; name another with -o")
    if there and not overwrite:
        raise OutputError(f"{image}: {target} is there already; --overwrite replaces it")
