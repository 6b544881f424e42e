"""A machine without a network: whoever looks up a name fails at once, and is written down."""

import socket

import huggingface_hub.constants
import pytest


@pytest.fixture
def asked(monkeypatch):
    """Host names asked for; the hub's own offline switch is off, as on a user's machine."""
    names = []

    def refuse(host, *args, **kwargs):
        names.append(host)
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    return names
