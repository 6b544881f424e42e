"""The errors of the library: one base class, so that a caller can catch them all."""

from __future__ import annotations


class SparseDistillError(Exception):
    """Base of every error the library raises on purpose."""


class ConfigError(SparseDistillError, ValueError):
    """A setting has a value that cannot work; the message names it and the values that can."""


class DataError(SparseDistillError, ValueError):
    """Texts, labels or counts are not what they must be; the message names the row."""


class ModelFileError(SparseDistillError):
    """A file of a saved model or vocabulary is missing, damaged or of a newer format."""


class TeacherError(SparseDistillError):
    """A teacher cannot be loaded, or does not fit the task."""
