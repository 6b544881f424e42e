"""Counting and choosing keep to the memory they are given: measured, in a process of their own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

# Run where nothing else takes memory. Kernels are called once before, so that no compiler runs.
SCRIPT = """
import json, sys
import numpy as np
from sparsedistill.building import build_vocabulary
from sparsedistill.text.buffers import TextBuffer
from sparsedistill.text.ngram_spec import NgramSpec

def status(name):
    lines = open("/proc/self/status").read().splitlines()
    return int(next(l for l in lines if l.startswith(name)).split()[1]) * 1024

words = np.array([f"w{i}" for i in range(30_000)])
rng = np.random.default_rng(3)
texts = [" ".join(row) for row in words[rng.integers(0, len(words), (60_000, 50))]]
buffer = TextBuffer.from_strings(texts)
del texts
few, spec = buffer.slice(0, 2000), NgramSpec()
for room in ("12MB", "2GB"):
    build_vocabulary([few, few], spec, size=1000, memory=room, threads=2)
before = status("VmRSS")
open("/proc/self/clear_refs", "w").write("5")
found = build_vocabulary([buffer], spec, size=20_000, memory=sys.argv[1], threads=2)
print(json.dumps({"peak": status("VmHWM") - before, "last": found[19_999], "rows": len(found)}))
"""


def peak(memory: str) -> dict[str, object]:
    """Peak memory beyond what the texts take, of choosing 20,000 out of 12 million n-grams."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, memory], check=True, capture_output=True, text=True
    )
    found: dict[str, object] = json.loads(done.stdout)
    return found


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux's /proc")
def test_what_is_counted_in_little_memory_is_the_same_and_takes_no_more():
    little, much = peak("48MB"), peak("2GB")
    assert little["last"] == much["last"]
    assert little["rows"] == much["rows"] == 20_000
    # 8 bytes for each of 11.6 million occurrences.
    assert much["peak"] > 90_000_000
    # What allocators keep beside what is asked of them: threads' arenas, freed pieces.
    assert little["peak"] < 48_000_000 + 24_000_000
