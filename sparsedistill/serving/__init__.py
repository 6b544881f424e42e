"""A classifier over HTTP: JSON in, JSON out.

    app = create_app(Classifier.load("student/"), Settings(name="reviews"))

is an ASGI application; `sparsedistill serve` runs it under uvicorn. It needs the extra `serve`.
"""

from __future__ import annotations

from sparsedistill.serving.app import Service, create_app
from sparsedistill.serving.settings import Settings

__all__ = ["Service", "Settings", "create_app"]
