"""Every error that skysub raises on purpose; each also is the built-in that a caller would catch."""

__all__ = [
    "ConfigError",
    "InvalidImageError",
    "LayoutError",
    "MaskPlaneError",
    "NoUsableSuperpixelsError",
    "SkysubError",
    "UndersampledError",
    "VisitFileError",
    "VisitFileNotFoundError",
]


class SkysubError(Exception):
    """Base of all errors that skysub raises on purpose."""


class ConfigError(SkysubError, ValueError):
    """A setting is unknown, out of range, or contradicts another."""


class InvalidImageError(SkysubError, ValueError):
    """An image or mask has a shape or type that cannot be worked on."""


class LayoutError(SkysubError, ValueError):
    """A FITS file is sound, but does not hold what its layout needs; the message says what to do."""


class MaskPlaneError(SkysubError, KeyError):
    """There is no mask plane of a name; the message lists those there are."""

    def __str__(self) -> str:
        # KeyError would print the message in quotes
        return str(self.args[0])


class NoUsableSuperpixelsError(SkysubError, ValueError):
    """No superpixel can enter the fit; the message says why."""


class UndersampledError(SkysubError, ValueError):
    """Too few superpixels for the order asked for, and the configuration says to raise."""


class VisitFileError(SkysubError, OSError):
    """A file cannot be read or written as FITS: truncated, damaged, of another kind, or locked away."""


class VisitFileNotFoundError(VisitFileError, FileNotFoundError):
    """There is no file at a path."""
