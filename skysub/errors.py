"""Every error that skysub raises on purpose; each also is the built-in that a caller would catch."""

__all__ = [
    "ConfigError",
    "InvalidImageError",
    "NoUsableSuperpixelsError",
    "SkysubError",
    "UndersampledError",
]


class SkysubError(Exception):
    """Base of all errors that skysub raises on purpose."""


class ConfigError(SkysubError, ValueError):
    """A setting is unknown, out of range, or contradicts another."""


class InvalidImageError(SkysubError, ValueError):
    """An image or mask has a shape or type that cannot be worked on."""


class NoUsableSuperpixelsError(SkysubError, ValueError):
    """No superpixel can enter the fit; the message says why."""


class UndersampledError(SkysubError, ValueError):
    """Too few superpixels for the order asked for, and the configuration says to raise."""
