from __future__ import annotations

from typing import Any

import pytest
from summary_example import make_summary


@pytest.fixture
def summary() -> dict[str, Any]:
    return make_summary()
