"""The run-time classifier must start fast and need little."""

import os
import shutil
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


COUNT_AND_HASH = """
from sparsedistill.text import tokens
from sparsedistill.text.buffers import TextBuffer
from sparsedistill.text.counting import count_ngrams
from sparsedistill.text.ngram_spec import NgramSpec
text, spec = TextBuffer.from_strings(["hello"]), NgramSpec("word", 1, 1)
print(count_ngrams(text, spec).hash[0], tokens.token_hashes(text, spec)[0][0])
"""


@pytest.mark.slow
def test_a_changed_module_has_the_kernels_that_are_made_from_it_compiled_anew(tmp_path):
    package = Path(sparsedistill.__file__).parent
    shutil.copytree(package, tmp_path / package.name, ignore=shutil.ignore_patterns("__pycache__"))
    kernels_file = tmp_path / package.name / "text/kernels.py"
    seen = set()
    for number in (0, 2):
        changed = f"LENGTH = np.uint64(oracle.LENGTH + {number})"
        source = (package / "text/kernels.py").read_text("utf-8")
        assert "LENGTH = np.uint64(oracle.LENGTH)" in source
        kernels_file.write_text(source.replace("LENGTH = np.uint64(oracle.LENGTH)", changed))
        done = subprocess.run(
            [sys.executable, "-c", COUNT_AND_HASH],
            env={**os.environ, "PYTHONPATH": str(tmp_path)},
            cwd=tmp_path,
            check=True,
            capture_output=True,
            text=True,
        )
        counted, hashed = done.stdout.split()
        assert counted == hashed
        seen.add(counted)
    assert len(seen) == 2
