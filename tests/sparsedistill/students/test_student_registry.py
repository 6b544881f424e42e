"""Students by name: from a config, into a file and back."""

from dataclasses import asdict

import numpy as np
import pytest
from helpers.random_bags import bags_of

from sparsedistill.errors import ConfigError, DataError, ModelFileError
from sparsedistill.objectives import Hard
from sparsedistill.students import StudentTraining
from sparsedistill.students.registry import (
    STUDENTS,
    from_metadata,
    shape_from,
    student_kind,
    to_metadata,
)
from sparsedistill.targets import Targets

# As a config has them: all students' settings in one table.
SETTINGS = {
    "width": 8,
    "hidden": 6,
    "activation": "relu",
    "init_scale": 0.1,
    "layers": None,
    "window": 3,
    "learning_rate": 0.1,
}
each_student = pytest.mark.parametrize("name", STUDENTS)


def made(name, **given):
    shape = shape_from(name, SETTINGS, rows=30, classes=3)
    return shape, student_kind(name).make(shape, training=StudentTraining(dropout=0.1), **given)


@each_student
def test_a_student_is_made_from_the_settings_that_are_its_own(name):
    shape, student = made(name, seed=3, threads=2)
    assert (shape.rows, shape.width, shape.hidden, shape.classes) == (30, 8, 6, 3)
    forms = {n: (a.dtype.type, a.shape) for n, a in student.weights().items()}
    assert forms == shape.weights()
    if name == "cnn":
        assert shape.window == 3
    if name == "bilstm":
        assert shape.layers == 2  # its own default, where none is set


@each_student
def test_every_student_keeps_to_the_interface(name):
    _, student = made(name)
    texts = bags_of([[1, 2, 3], [], [4]])
    batch = student.prepare(texts, np.array([2, 0]), update=1)
    labels = Targets(labels=np.array([1, 0]))
    loss = student.step(batch, labels, Hard(), update=1, learning_rate=0.01)
    assert loss > 0
    assert student.predict(texts).shape == (3, 3)
    rows = {name: len(array) for name, array in student.changed().items()}
    arrays = student.weights() | student.optimiser_state()
    assert rows == {name: len(arrays[name]) for name in rows}
    assert set(np.flatnonzero(student.changed()["table"])) == {1, 2, 3, 4}


@each_student
def test_a_file_says_which_student_it_holds(name):
    shape, student = made(name)
    kind, found = from_metadata(to_metadata(shape))
    assert (kind, found) == (STUDENTS[name], shape)
    texts = bags_of([[1, 2, 3], []])
    again = kind.make(found, weights=student.weights())
    np.testing.assert_array_equal(again.predict(texts), student.predict(texts))


@each_student
def test_a_table_can_start_from_rows_of_elsewhere(name):
    rows = np.random.default_rng(0).standard_normal((30, 8)).astype(np.float32)
    _, student = made(name, embeddings=rows)
    np.testing.assert_array_equal(student.weights()["table"], rows)
    with pytest.raises(DataError, match=r"table is float32 \[29, 8\]"):
        made(name, embeddings=rows[1:])


def test_an_unknown_name_is_refused_with_those_there_are():
    with pytest.raises(ConfigError, match="no student 'gru'; there are dan, bilstm, cnn"):
        shape_from("gru", SETTINGS, rows=1, classes=2)


@pytest.mark.parametrize(
    "spoilt",
    [
        {"architecture": "gru"},
        {"shape": '{"rows": 3, "heads": 4}'},
        {"shape": "{"},
        {"shape": "[]"},
        {"architecture": None},
    ],
)
def test_a_file_of_a_student_not_known_here_is_refused(spoilt):
    shape, _ = made("cnn")
    metadata = {**to_metadata(shape), **spoilt}
    with pytest.raises(ModelFileError, match="newer version"):
        from_metadata({name: value for name, value in metadata.items() if value is not None})


def test_the_fields_of_a_shape_are_its_json():
    for name in STUDENTS:
        shape = shape_from(name, SETTINGS, rows=30, classes=3)
        assert shape.to_json() == asdict(shape)
