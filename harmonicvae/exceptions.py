"""Every error and warning that harmonicvae raises on purpose.

Each derives from :class:`HarmonicVAEError` and from the builtin a caller would
expect, so both ``except HarmonicVAEError`` and ``except ValueError`` work.
"""


class HarmonicVAEError(Exception):
    """Base class of all errors raised by harmonicvae."""


class InputError(HarmonicVAEError, ValueError):
    """A value given by the caller is outside what is allowed; the caller can fix it."""


class UnsupportedNetworkError(HarmonicVAEError, NotImplementedError):
    """A network holds a layer or activation that cannot be represented exactly."""


class SolverError(HarmonicVAEError, RuntimeError):
    """A numerical method ended without a usable result."""


class DivergenceError(HarmonicVAEError, FloatingPointError):
    """Training produced a loss that is NaN or infinite."""


class SoundnessError(HarmonicVAEError, RuntimeError):
    """A lower bound exceeds an upper bound: one of the two is wrong."""


class DatasetNotFoundError(HarmonicVAEError, FileNotFoundError):
    """A data folder or file is missing."""


class DatasetCorruptError(HarmonicVAEError, OSError):
    """A data file exists but is truncated, altered or of the wrong size."""


class TrackingError(HarmonicVAEError, RuntimeError):
    """The MLflow store refused, or holds something other than what was asked for."""


class StorageError(TrackingError, OSError):
    """The disk is full, or the store is locked or gone; what is finished is kept."""


class CollapseWarning(UserWarning):
    """The decoder ignores the code: the trained model is constant or nearly so."""
