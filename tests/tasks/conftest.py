"""Stages over the tiny task, in a store of their own."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers.stages import Workshop


@pytest.fixture
def workshop(own_data: Path, tmp_path: Path) -> Workshop:
    """An empty store, and files that the test may change."""
    return Workshop(own_data, tmp_path / "store")


@pytest.fixture
def stocked(own_data: Path, own_store: Path) -> Workshop:
    """A store that holds a whole run over the files, which the test may change."""
    return Workshop(own_data, own_store)
