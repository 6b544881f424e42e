"""Progress: seen where somebody can see it, and nowhere else."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from flows.input_files import Meter
from flows.progress_line import ProgressLine


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def meter(tmp_path: Path) -> Meter:
    path = tmp_path / "x.txt"
    path.write_bytes(b"x" * 4_000_000)
    return Meter([str(path)])


def test_rows_pace_share_and_time_left(meter: Meter):
    ticks = iter([0.0, 0.05, 10.0, 10.1])
    stream = Terminal()
    with ProgressLine(meter, stream=stream, clock=lambda: next(ticks)) as progress:
        progress.advance(500)
        assert stream.getvalue() == ""
        meter.read = 1_000_000
        progress.advance(500)
        shown = stream.getvalue()
        progress.advance(1)
    assert shown == "\r\033[K1,000 rows  100 rows/s  25% of 4.0 MB  0:30 left"
    # Not five times a second, and taken away at the end.
    assert stream.getvalue() == shown + "\r\033[K"


def test_without_a_size_there_is_no_share(tmp_path: Path):
    ticks = iter([0.0, 4000.0])
    stream = Terminal()
    with ProgressLine(Meter(["-", "nowhere"]), stream=stream, clock=lambda: next(ticks)) as line:
        line.advance(8_000_000)
    assert "8,000,000 rows  2,000 rows/s\r" in stream.getvalue()


@pytest.mark.parametrize(("stream", "wanted"), [(io.StringIO(), True), (Terminal(), False)])
def test_where_nobody_looks_nothing_is_written(meter: Meter, stream: io.StringIO, wanted: bool):
    ticks = iter(range(0, 100, 10))
    with ProgressLine(meter, wanted=wanted, stream=stream, clock=lambda: next(ticks)) as progress:
        progress.advance(5)
    assert stream.getvalue() == ""
