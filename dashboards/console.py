"""Where commands print: what they quote is text and no markup, and a line stays one line."""

from __future__ import annotations

import os

from rich.console import Console

_NO_TERMINAL = 200


def plain_console() -> Console:
    """Return a console for lines with names, paths and reasons that come from people's files.

    A bracket in them is a bracket, and a path is not folded at the edge of the terminal, nor at 80
    columns where there is none: it can be copied, and read by scripts. Tables fill the terminal at
    the most; where there is none, they are as wide as they need.
    """
    console = Console(markup=False, highlight=False, soft_wrap=True)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = _NO_TERMINAL
    return console
