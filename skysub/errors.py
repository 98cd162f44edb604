"""Every error that skysub raises on purpose; each also is the built-in that a caller would catch."""

from __future__ import annotations

from skysub.text import printable

__all__ = [
    "CampaignNotFoundError",
    "ClusterError",
    "ConfigError",
    "DamagedError",
    "InputChangedError",
    "InputsError",
    "InvalidImageError",
    "LayoutError",
    "MaskPlaneError",
    "MissingPackageError",
    "ModelFileError",
    "NoUsableSuperpixelsError",
    "NotDoneError",
    "NotEnoughMemoryError",
    "OutputError",
    "OutputInUseError",
    "RecipeError",
    "ReferenceCatalogueError",
    "SkysubError",
    "StoreVersionError",
    "TruthError",
    "UndersampledError",
    "VisitFileError",
    "VisitFileNotFoundError",
    "how_to_install",
]


class SkysubError(Exception):
    """Base of all errors that skysub raises on purpose; what its message quotes is made safe to print."""

    def __str__(self) -> str:
        return printable(super().__str__())


class CampaignNotFoundError(SkysubError, FileNotFoundError):
    """There is no campaign at a path."""


class ClusterError(SkysubError, ConnectionError):
    """No Dask cluster to work on: none answers, or its workers are gone."""


class ConfigError(SkysubError, ValueError):
    """A setting is unknown, out of range, or contradicts another."""


class DamagedError(SkysubError, ValueError):
    """A file of a campaign's output is not as it was written, or is gone; the message says what heals it."""


class InputChangedError(SkysubError, OSError):
    """An input file is not the one that was planned: it changed, or it is gone."""


class InputsError(SkysubError, ValueError):
    """The inputs of a recipe match nothing, or two files claim to be the same detector of a visit."""


class InvalidImageError(SkysubError, ValueError):
    """An image or mask has a shape or type that cannot be worked on."""


class LayoutError(SkysubError, ValueError):
    """A FITS file is sound, but does not hold what its layout needs; the message says what to do."""


class MaskPlaneError(SkysubError, KeyError):
    """There is no mask plane of a name; the message lists those there are."""

    def __str__(self) -> str:
        # KeyError would print the message in quotes
        return printable(self.args[0])


class MissingPackageError(SkysubError, ImportError):
    """A package that only some work needs is not installed; the message says how to install it."""


class ModelFileError(SkysubError, ValueError):
    """A file with a model of the sky cannot be read, or cannot be matched to a visit and detector."""


class NoUsableSuperpixelsError(SkysubError, ValueError):
    """No superpixel can enter the fit; the message says why."""


class NotDoneError(SkysubError, LookupError):
    """A product is asked for that is not there (yet); the message says why."""


class NotEnoughMemoryError(SkysubError, MemoryError):
    """A worker has less memory than one unit of work needs."""


class OutputError(SkysubError, OSError):
    """An output cannot be written or reached: a folder or bucket that is full, read-only, away, or none."""


class OutputInUseError(OutputError, BlockingIOError):
    """Another process is running a campaign in the same output folder."""


class RecipeError(SkysubError, ValueError):
    """A recipe or profile cannot be read, has an unknown key, or a value that is no good."""


class ReferenceCatalogueError(SkysubError, ValueError):
    """A reference catalogue cannot be read or lacks a column."""


class StoreVersionError(SkysubError, RuntimeError):
    """A store was written by a newer skysub, in a layout that this one does not know."""


class TruthError(SkysubError, OSError):
    """The truth of a simulation is not where it was looked for, or not in a form that can be read."""


class UndersampledError(SkysubError, ValueError):
    """Too few superpixels for the order asked for, and the configuration says to raise."""


class VisitFileError(SkysubError, OSError):
    """A file cannot be read or written as FITS: truncated, damaged, of another kind, or locked away."""


class VisitFileNotFoundError(VisitFileError, FileNotFoundError):
    """There is no file at a path."""


def how_to_install(extra: str) -> str:
    """What to do where a package of an optional extra is missing."""
    return f"install skysub with the extra {extra}: pip install '.[{extra}]' in its folder"
