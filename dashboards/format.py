"""How numbers and texts are written for people: one place, so that all pages agree.

Every function takes ``None`` for "not measured" and answers with a dash. The space before a unit
does not break.
"""

from __future__ import annotations

import json
import math
import re

MISSING = "–"
_SPACE = "\u00a0"
# Control characters break XML and terminals, lone surrogates break UTF-8, and bidirectional
# overrides can make a label read as another one.
_UNSAFE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]"
)


def clean(text: object) -> str:
    """Return `text` as a string that can be shown anywhere; what cannot becomes U+FFFD."""
    return _UNSAFE.sub("\ufffd", str(text))


def one_line(text: object, *, limit: int = 60) -> str:
    """Return `text` cleaned, on one line and at most `limit` characters long."""
    line = " ".join(clean(text).split())
    return line if len(line) <= limit else line[: limit - 1].rstrip() + "…"


def json_text(value: object, *, ascii_only: bool = False) -> str:
    """Return `value` as JSON; what cannot be shown anywhere is escaped, and so still the same."""
    text = json.dumps(value, ensure_ascii=ascii_only, indent=1)
    # JSON has none of these but in strings, and DEL and the C1 controls are allowed there as such.
    return _UNSAFE.sub(lambda found: f"\\u{ord(found.group()):04x}", text)


def table_shape(rows: int, width: int, hidden: int, dtype: str) -> str:
    """A model's table: ``8 × 16 float32``; where it was narrowed, what that is made wide with."""
    shape = f"{rows:,} × {width} {dtype}"
    return shape if width == hidden else f"{shape}, through a projection to {hidden}"


def share(value: float | None, *, digits: int = 1) -> str:
    """0.7451 -> ``74.5 %``."""
    return MISSING if value is None else f"{100 * value:.{digits}f}{_SPACE}%"


def exact_share(value: float | None) -> str:
    """0.77643 -> ``77.64 %``: where small differences are what is shown."""
    return share(value, digits=2)


def points(value: float | None) -> str:
    """A spread of shares in percentage points: 0.004 -> ``± 0.4``; nothing where there is none."""
    return "" if value is None else f"±{_SPACE}{100 * value:.1f}"


def count(value: float | None) -> str:
    """4000 -> ``4,000``."""
    return MISSING if value is None else f"{value:,.0f}"


def short_count(value: float) -> str:
    """1_250_000 -> ``1.2M``: for axes and bar ends."""
    for unit, factor in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= factor:
            return f"{_trim(value / factor)}{unit}"
    return _trim(value)


def rate(value: float | None) -> str:
    """Texts per second: 98412.3 -> ``98,412``; one decimal below a hundred."""
    if value is None:
        return MISSING
    return f"{value:,.1f}" if value < 100 else f"{value:,.0f}"


def times(value: float | None) -> str:
    """A ratio: 812.3 -> ``812 ×``; one decimal below ten, two below one."""
    if value is None:
        return MISSING
    digits = 0 if value >= 10 else 1 if value >= 1 else 2
    return f"{value:,.{digits}f}{_SPACE}×"


def size(value: float | None) -> str:
    """Bytes in decimal units: 52_400_000 -> ``52.4 MB``."""
    if value is None:
        return MISSING
    for unit, factor in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if value >= factor:
            return f"{_trim(value / factor)}{_SPACE}{unit}"
    return f"{value:.0f}{_SPACE}B"


def duration(seconds: float | None) -> str:
    """Seconds: 0.42 -> ``0.4 s``, 91 -> ``1 min 31 s``, 7500 -> ``2 h 05 min``."""
    if seconds is None:
        return MISSING
    if seconds < 9.95:
        return f"{seconds:.1f}{_SPACE}s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole}{_SPACE}s"
    if whole < 3600:
        return f"{whole // 60}{_SPACE}min {whole % 60:02d}{_SPACE}s"
    minutes = round(seconds / 60)
    return f"{minutes // 60}{_SPACE}h {minutes % 60:02d}{_SPACE}min"


def decimal(value: float | None) -> str:
    """A plain number with three significant digits: 1.3, 1.2e-07, 0."""
    return MISSING if value is None else f"{value:.3g}"


def signed(value: float | None) -> str:
    """A number with its sign and a true minus: -1.2 -> ``−1.20``."""
    return MISSING if value is None else f"{value:+.2f}".replace("-", "−")


def _trim(value: float) -> str:
    """Three digits where that is enough, no trailing zeros: 1.20 -> 1.2, 52.44 -> 52.4."""
    digits = max(0, 2 - math.floor(math.log10(value))) if value > 0 else 0
    text = f"{value:,.{min(digits, 2)}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
