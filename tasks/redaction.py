"""What the environment keeps secret, crossed out of a text; needs nothing but the base install."""

from __future__ import annotations

import os
import re

_SECRET_NAME = re.compile(
    r"SECRET|TOKEN|PASSWORD|PASSWD|CREDENTIAL|API_?KEY|ACCESS_?KEY|AUTH(?!OR)"
)
_LEAST_SECRET = 8


def crossed_out(text: str) -> str:
    """Return a text in which ``***`` stands for the values of variables that are secrets.

    That is the value, of eight characters or more, of every variable whose name says so (with
    SECRET, TOKEN, PASSWORD, ACCESS_KEY and the like in it).
    """
    secrets = {
        value
        for name, value in os.environ.items()
        if len(value) >= _LEAST_SECRET and _SECRET_NAME.search(name.upper())
    }
    # The longest first: one may begin with another.
    for value in sorted(secrets, key=len, reverse=True):
        text = text.replace(value, "***")
    return text
