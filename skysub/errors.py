"""Every error that skysub raises on purpose; each also is the built-in that a caller would catch."""

from __future__ import annotations

from skysub.text import printable

__all__ = [
    "AmbiguousImageError",
    "CalibrationError",
    "CampaignNotFoundError",
    "ChecksumError",
    "ClusterError",
    "ConfigError",
    "DamagedError",
    "InputChangedError",
    "InputsError",
    "InvalidImageError",
    "InvalidPsfError",
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
    "SkyIsGoneError",
    "SkysubError",
    "SourceIdError",
    "StoreVersionError",
    "TemplatesError",
    "TruthError",
    "UndersampledError",
    "UnknownEntryError",
    "UpstreamFailureError",
    "VisitFileError",
    "VisitFileNotFoundError",
    "VisitSummaryError",
    "how_to_install",
]


class SkysubError(Exception):
    """Base of all errors that skysub raises on purpose; what its message quotes is made safe to print."""

    def __str__(self) -> str:
        return printable(super().__str__())


class CalibrationError(SkysubError, ValueError):
    """A calibration that no detector has: a field with zeros, of the wrong size, or not finite."""


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


class InvalidPsfError(SkysubError, ValueError):
    """A point-spread function that sources cannot be measured with: none, or undefined everywhere."""


class LayoutError(SkysubError, ValueError):
    """A FITS file is sound, but does not hold what its layout needs; the message says what to do."""


class AmbiguousImageError(LayoutError):
    """A FITS file holds several images, and nothing says which one is meant."""

    def __init__(self, message: str, extensions: tuple[int, ...] = ()) -> None:
        super().__init__(message)
        self.extensions = extensions
        """Numbers of the HDUs that may be meant."""


class UnknownEntryError(LayoutError):
    """A header does not say, or not in a way that is understood, what a visit image needs."""

    def __init__(self, message: str, entry: str = "", stated: str = "") -> None:
        super().__init__(message)
        self.entry = entry
        """Name of the entry of `skysub.IngestMap` that would say it."""
        self.stated = stated
        """What the header has there; empty where it has nothing."""


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


class SkyIsGoneError(SkysubError, ValueError):
    """An image's header says that its sky has been subtracted already."""


class SourceIdError(SkysubError, OverflowError):
    """A release, visit, detector or number of sources does not fit into the ids of sources."""


class StoreVersionError(SkysubError, RuntimeError):
    """A store was written by a newer skysub, in a layout that this one does not know."""


class TemplatesError(SkysubError, ValueError):
    """Templates cannot be made of some visits, or a file of them cannot be read; the message says why."""


class TruthError(SkysubError, OSError):
    """The truth of a simulation is not where it was looked for, or not in a form that can be read."""


class UndersampledError(SkysubError, ValueError):
    """Too few superpixels for the order asked for, and the configuration says to raise."""


class UpstreamFailureError(SkysubError, LookupError):
    """A detector lacks what earlier work should have found for it; the message names each thing.

    Parameters
    ----------
    message
        For people.
    missing
        Names of what is missing, as `skysub.visit.calibrations` has them.
    """

    def __init__(self, message: str, missing: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.missing = missing

    def __reduce__(self) -> tuple[type[UpstreamFailureError], tuple[str, tuple[str, ...]]]:
        return type(self), (self.args[0], self.missing)


class VisitFileError(SkysubError, OSError):
    """A file cannot be read or written as FITS: truncated, damaged, of another kind, or locked away."""


class ChecksumError(VisitFileError):
    """The bytes of a file do not have the CHECKSUM or DATASUM that its header states."""


class VisitFileNotFoundError(VisitFileError, FileNotFoundError):
    """There is no file at a path."""


class VisitSummaryError(SkysubError, ValueError):
    """A visit summary cannot be read, lacks a column, or has a detector twice."""


def how_to_install(extra: str) -> str:
    """What to do where a package of an optional extra is missing."""
    return f"install skysub with the extra {extra}: pip install '.[{extra}]' in its folder"
