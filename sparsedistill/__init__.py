"""sparsedistill: distil a slow, accurate text classifier into a fast sparse n-gram student.

`from sparsedistill import Classifier` loads and runs a finished student; it needs numpy, numba,
safetensors and zstandard, and is imported when it is first asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sparsedistill.classifier import Classifier

__version__ = "0.1.0"

__all__ = ["Classifier", "__version__"]


def __getattr__(name: str) -> Any:  # noqa: ANN401
    if name == "Classifier":
        from sparsedistill.classifier import Classifier

        return Classifier
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
