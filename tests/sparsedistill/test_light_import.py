"""The run-time classifier must start fast and need little."""

import subprocess
import sys
from pathlib import Path

import numba
import pytest

import sparsedistill
from sparsedistill import jit, merging, ngram_index, selection
from sparsedistill.text import buffers, kernels, partitions, recovery, strings

ROOT = Path(sparsedistill.__file__).parents[1]
HEAVY = ["torch", "transformers", "prefect", "pyarrow", "polars", "sklearn", "pydantic"]


def run(code):
    return subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split()


def test_the_classifier_imports_nothing_of_the_pipeline():
    code = "import sys\nfrom sparsedistill import Classifier\nprint(*sys.modules)"
    top = {name.split(".")[0] for name in run(code)}
    assert top.isdisjoint(HEAVY)
    assert {"numpy", "numba", "safetensors", "zstandard"} <= top


def test_the_package_itself_imports_nothing():
    code = "import sys\nimport sparsedistill\nprint(sparsedistill.__version__, *sys.modules)"
    version, *modules = run(code)
    assert version == sparsedistill.__version__
    assert {"numpy", "numba"}.isdisjoint(modules)


def test_a_name_that_the_package_does_not_have_is_an_attribute_error():
    with pytest.raises(AttributeError, match="Clasifier"):
        _ = sparsedistill.Clasifier


@pytest.mark.parametrize(
    "kernel",
    [
        kernels.token_rows,
        partitions.scatter_rows,
        partitions.gather_partition,
        partitions.count_runs,
        merging.add_equal,
        recovery.find_rows,
        recovery.fill_filter,
        selection.read_words,
        buffers.gather,
        strings.hash_rows,
        ngram_index.look_up_rows,
        ngram_index.find_all,
        ngram_index.fill,
    ],
    ids=lambda kernel: kernel.__name__,
)
def test_no_kernel_is_compiled_twice_for_like_arguments(kernel):
    # Each further signature costs every fresh machine seconds; other tests have called them all.
    assert len(kernel.signatures) <= 1


def test_where_nothing_can_be_cached_a_kernel_still_works(monkeypatch):
    njit = numba.njit

    def no_cache(*, nogil, cache=False):
        if cache:
            raise RuntimeError("cannot cache function: no locator available")
        return njit(nogil=nogil)

    monkeypatch.setattr(numba, "njit", no_cache)
    twice = jit.kernel(lambda x: 2 * x)
    assert twice(21) == 42
