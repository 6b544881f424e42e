"""OpenVINO in place of torch: the same logits, and nothing told to its makers."""

import importlib.util
import logging
import os
import subprocess
import sys

import numpy as np
import pytest
from helpers.tiny_task import LABELS, texts

from sparsedistill.errors import ConfigError, TeacherError
from sparsedistill.teacher import openvino_session
from sparsedistill.teacher.labelling import LabellingOptions, Teacher
from sparsedistill.teacher.session import open_session

needs_openvino = pytest.mark.skipif(
    importlib.util.find_spec("openvino") is None, reason="openvino is not installed"
)
TEXTS = [text for text, _ in texts(30, seed=9)] + ["", "rose", "rose " * 200, "☃ zzz"]


def teacher(directory, **options):
    return Teacher(directory, labels=LABELS, options=LabellingOptions(threads=2, **options))


@needs_openvino
def test_its_logits_are_those_of_torch(tiny_classifier):
    ours = teacher(tiny_classifier).logits(TEXTS)
    theirs = teacher(tiny_classifier, engine="openvino").logits(TEXTS)
    np.testing.assert_allclose(theirs, ours, atol=1e-4)
    assert not (theirs == theirs[0]).all()


@needs_openvino
def test_logs_are_as_they_were_afterwards(tiny_classifier, caplog):
    """Its converter sets the root logger to errors, and gives it a filter and a handler."""
    root = logging.getLogger()
    before = root.level, root.filters[:], root.handlers[:]
    teacher(tiny_classifier, engine="openvino")
    assert (root.level, root.filters, root.handlers) == before
    logging.getLogger("sparsedistill.somewhere").warning("still heard")
    assert "still heard" in caplog.text


@needs_openvino
def test_a_rows_bits_do_not_depend_on_the_rows_beside_it(tiny_classifier):
    asked = teacher(tiny_classifier, engine="openvino")
    whole = asked.logits(TEXTS)
    np.testing.assert_array_equal(asked.logits(TEXTS[::-3]), whole[::-3])


@needs_openvino
def test_bfloat16_stays_near(tiny_classifier):
    low = teacher(tiny_classifier, engine="openvino", precision="bfloat16").logits(TEXTS)
    assert np.abs(low - teacher(tiny_classifier).logits(TEXTS)).max() < 0.05


@needs_openvino
def test_float16_is_refused(tiny_classifier):
    with pytest.raises(ConfigError, match="has float32 and bfloat16, not float16"):
        teacher(tiny_classifier, engine="openvino", precision="float16")


@needs_openvino
def test_a_model_that_cannot_be_compiled_says_which_engine_can(monkeypatch, tiny_classifier):
    def fail(*args):
        raise RuntimeError("no conversion rule")

    monkeypatch.setattr(openvino_session._Logits, "forward", fail)
    with pytest.raises(TeacherError, match=r'cannot compile this teacher .*engine = "torch"'):
        teacher(tiny_classifier, engine="openvino")


@needs_openvino
def test_a_graph_that_says_something_else_is_refused(monkeypatch, tiny_classifier):
    real = openvino_session.OpenVinoSession.__call__
    monkeypatch.setattr(
        openvino_session.OpenVinoSession,
        "__call__",
        lambda self, inputs, mask: real(self, inputs, mask) + 1,
    )
    with pytest.raises(TeacherError, match=r"\(its logits are not those of torch\)"):
        teacher(tiny_classifier, engine="openvino")


def test_a_gpu_is_refused():
    with pytest.raises(ConfigError, match="is for CPUs, and the teacher is on cuda:0"):
        open_session(None, engine="openvino", device="cuda:0", precision="float32", threads=1)


def test_without_the_package_the_error_names_the_extra(monkeypatch, tiny_classifier):
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(ConfigError, match=r'pip install "sparsedistill\[openvino\]"'):
        teacher(tiny_classifier, engine="openvino")


@needs_openvino
def test_importing_it_tells_nobody():
    """By itself it reports each import, in a process of its own, unless its user has opted out."""
    script = (
        "import sys\n"
        "from sparsedistill.teacher.openvino_session import _openvino\n"
        "_openvino()\n"
        "import openvino.tools.ovc.telemetry_utils as used\n"
        "print(used.tm.__name__)\n"
        "assert 'openvino_telemetry' not in sys.modules\n"
    )
    found = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True, text=True, timeout=60, check=True, env={**os.environ},
    )  # fmt: skip
    assert found.stdout.strip() == "openvino.tools.ovc.telemetry_stub"
