"""What a student needs is said before it is made, and is close to what training then takes."""

import re
import subprocess
import sys

import pytest

from sparsedistill.errors import ConfigError
from sparsedistill.memory import parse_size
from sparsedistill.students import DANShape, StudentTraining
from sparsedistill.training.memory_plan import check_memory, memory_plan

GB = 10**9
PAPER = DANShape(1_000_000, 1000, 1000, 2, "relu", 1.0)
RUN = {"batch_size": 2048, "examples": 100_000}


def test_the_papers_student_is_a_table_of_four_gigabytes_and_eight_of_moments():
    plan = memory_plan(PAPER, StudentTraining(), **RUN)
    assert (plan.table, plan.moments) == (4 * GB, 8 * GB)
    assert 12.5 * GB < plan.total < 13.5 * GB


@pytest.mark.parametrize(
    ("shape", "training", "expected"),
    [
        (PAPER, StudentTraining(second_moment="row"), 4 * GB + 4 * GB + 4_000_000),
        (DANShape(1_000_000, 1000, 1000, 2, "relu", 1.0, table_type="bfloat16"), StudentTraining(),
         2 * GB + 8 * GB),
    ],
    ids=["one moment a row", "bfloat16"],
)  # fmt: skip
def test_each_way_out_saves_what_it_is_said_to(shape, training, expected):
    plan = memory_plan(shape, training, **RUN)
    assert plan.table + plan.moments == expected


def test_a_student_that_does_not_fit_is_refused_with_the_ways_out():
    with pytest.raises(ConfigError) as error:
        check_memory(PAPER, StudentTraining(), **RUN, budget=10 * GB)
    message = str(error.value)
    assert "1,000,000 rows x 1000" in message
    assert "table 4000MB, moments 8000MB" in message
    assert "does not fit into 10000MB" in message
    # Each way out that is offered is one.
    for width in re.findall(r"width = (\d+)", message):
        smaller = DANShape(1_000_000, int(width), 1000, 2, "relu", 1.0)
        assert memory_plan(smaller, StudentTraining(), **RUN).total <= 10 * GB
    for rows in re.findall(r"size = (\d+)", message):
        fewer = DANShape(int(rows), 1000, 1000, 2, "relu", 1.0)
        assert memory_plan(fewer, StudentTraining(), **RUN).total <= 10 * GB
    for size in re.findall(r"takes? (\d+MB)", message):
        assert parse_size(size) <= 10 * GB
    assert 'second_moment = "row"' in message
    assert "both take" in message


def test_only_ways_that_lead_out_are_offered():
    with pytest.raises(ConfigError) as error:
        check_memory(PAPER, StudentTraining(second_moment="row"), **RUN, budget=7 * GB)
    message = str(error.value)
    assert "second_moment" not in message
    assert "bfloat16" in message
    with pytest.raises(ConfigError, match=r"a smaller .* size or width is needed"):
        check_memory(PAPER, StudentTraining(), **RUN, budget=GB // 2)


def test_students_at_a_time_need_so_many_times_the_memory():
    small = DANShape(100_000, 1000, 1000, 2, "relu", 1.0)
    need = memory_plan(small, StudentTraining(), **RUN).total
    assert check_memory(small, StudentTraining(), **RUN, budget=need).total == need
    with pytest.raises(ConfigError, match=r"2 students at a time .*\[run\] workers = 1"):
        check_memory(small, StudentTraining(), **RUN, budget=2 * need - 1, at_once=2)


def test_where_the_machine_is_not_known_nothing_is_refused():
    assert check_memory(PAPER, StudentTraining(), **RUN, budget=None).total > 12 * GB


TRAINED = """
import numpy as np
from sparsedistill.bags import Bags
from sparsedistill.objectives import Hard
from sparsedistill.students import DAN, DANShape
from sparsedistill.targets import Targets

rng = np.random.default_rng(0)
student = DAN(DANShape(200_000, 256, 256, 2, "relu", 0.1), threads=1)
for update in range(1, 9):
    bags = Bags(rng.integers(0, 200_000, 2048 * 40).astype(np.int32), np.arange(2049) * 40)
    batch = student.prepare(bags, np.arange(2048), update=update)
    student.step(batch, Targets(labels=rng.integers(0, 2, 2048)), Hard(), update=update,
                 learning_rate=1e-3)
# Not getrusage, which a new process inherits from the one that started it.
status = open("/proc/self/status").read()
print(status.split("VmHWM:")[1].split()[0])
"""


def test_training_takes_no_more_than_was_planned():
    ran = subprocess.run(
        [sys.executable, "-c", TRAINED], capture_output=True, text=True, timeout=120, check=True
    )
    taken = int(ran.stdout) * 1024
    shape = DANShape(200_000, 256, 256, 2, "relu", 0.1)
    plan = memory_plan(shape, StudentTraining(), batch_size=2048, examples=2048, ngrams_a_text=40)
    assert plan.table + plan.moments < taken < plan.total * 1.05
