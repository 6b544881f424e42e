"""What the tests of training share: they do not wait for the disk."""

import os

import pytest


@pytest.fixture(autouse=True)
def _quick_disk(monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda handle: None)
