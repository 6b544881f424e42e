"""What a student over subwords needs is said before it is made, and is what training then takes."""

import re
import subprocess
import sys

import pytest

from sparsedistill.errors import ConfigError
from sparsedistill.memory import parse_size
from sparsedistill.students import StudentTraining
from sparsedistill.students.bilstm import BiLSTM
from sparsedistill.students.cnn import CNN
from sparsedistill.training.subword_memory import check_subword_memory

NETWORKS = {
    "BiLSTM": BiLSTM(30_000, 256, 192, 2, 0.1),
    "CNN": CNN(30_000, 256, 192, 2, 0.1),
}
RUN = {"batch_size": 64, "tokens_a_text": 200, "longest": 200, "examples": 10**6, "threads": 2}


def plan_of(network, *, budget=None, training=None, **changed):
    settings = {**RUN, **changed}
    return check_subword_memory(network, training or StudentTraining(), budget=budget, **settings)


@pytest.mark.parametrize("name", NETWORKS)
def test_table_moments_and_targets_are_counted_to_the_byte(name):
    plan = plan_of(NETWORKS[name])
    assert (plan.table, plan.moments) == (30_000 * 256 * 4, 2 * 30_000 * 256 * 4)
    assert plan.targets == 10**6 * 16
    by_row = plan_of(NETWORKS[name], training=StudentTraining(second_moment="row"))
    assert by_row.moments == 30_000 * 256 * 4 + 30_000 * 4


@pytest.mark.parametrize("name", NETWORKS)
def test_longer_texts_larger_batches_and_more_threads_take_more(name):
    usual = plan_of(NETWORKS[name]).total
    for changed in ({"tokens_a_text": 300}, {"longest": 300}, {"batch_size": 128}, {"threads": 3}):
        assert plan_of(NETWORKS[name], **changed).total > usual
    # A batch of one slice is the work of one thread.
    few = [plan_of(NETWORKS[name], batch_size=16, threads=threads).total for threads in (1, 9)]
    assert few[0] == few[1]


def test_one_that_does_not_fit_is_refused_with_what_it_needs():
    need = plan_of(NETWORKS["BiLSTM"]).total
    assert plan_of(NETWORKS["BiLSTM"], budget=need).total == need
    with pytest.raises(ConfigError) as error:
        plan_of(NETWORKS["BiLSTM"], budget=need - 1)
    message = str(error.value)
    assert "a BiLSTM of 30,000 tokens x 256 takes" in message
    assert "a batch of 64 texts of up to 200 tokens" in message
    assert "smaller batch_size or max_length" in message
    assert parse_size(re.search(r"takes (\d+MB)", message)[1]) == pytest.approx(need, abs=10**6)


TRAINED = """
import sys
import numpy as np
from sparsedistill.bags import Bags
from sparsedistill.objectives import Hard
from sparsedistill.students.bilstm import BiLSTM
from sparsedistill.students.cnn import CNN
from sparsedistill.students.subwords import SubwordStudent
from sparsedistill.targets import Targets

rng = np.random.default_rng(0)
network = {"BiLSTM": BiLSTM, "CNN": CNN}[sys.argv[1]](30_000, 256, 192, 2, 0.1)
student = SubwordStudent(network, threads=2)
texts = Bags(rng.integers(0, 30_000, 64 * 200).astype(np.int32), np.arange(65) * 200)
targets = Targets(labels=rng.integers(0, 2, 64))
batch = student.prepare(texts, np.arange(64), update=1)
student.step(batch, targets, Hard(), update=1, learning_rate=1e-3)
# Not getrusage, which a new process inherits from the one that started it.
status = open("/proc/self/status").read()
print(status.split("VmHWM:")[1].split()[0])
"""


@pytest.mark.parametrize("name", NETWORKS)
def test_training_takes_no_more_than_was_planned(name):
    ran = subprocess.run(
        [sys.executable, "-c", TRAINED, name],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    taken = int(ran.stdout) * 1024
    plan = plan_of(NETWORKS[name], examples=64)
    assert plan.table + plan.moments < taken < plan.total
