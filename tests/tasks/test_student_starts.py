"""Students that start from the teacher's embeddings: what they are made of, where they start."""

import json

import numpy as np
import pytest
from helpers.stages import Workshop
from safetensors.numpy import load_file

from flows.config import parse_config
from sparsedistill.errors import ConfigError
from sparsedistill.students.tokens import teacher_embeddings
from sparsedistill.teacher.checkpoint import load_tokenizer
from tasks.student_file import FILE
from tasks.vocabulary import read_vocabulary

# At a rate of next to nothing a student stays where it started.
STANDING = {"epochs": 1, "learning_rate": 1e-12, "scratch_epochs": 1, "init_scale": 0.3}


def test_every_student_that_starts_from_the_teacher_is_made_of_it(stocked: Workshop):
    taught = stocked.jobs("student", student={"start": "teacher"})
    random = stocked.jobs("student")
    assert {job.label.split()[0] for job in taught} == {"scratch", "kd_private", "kd"}
    for job, other in zip(taught, random, strict=True):
        assert len(job.recipe.inputs["teacher"]) == 1
        assert job.recipe.key != other.recipe.key
    assert "teacher" not in random[0].recipe.inputs


def test_a_table_starts_at_the_mean_of_the_teachers_embeddings(stocked: Workshop):
    made = stocked.make("student", student={**STANDING, "start": "teacher", "width": 32})
    vocabulary = read_vocabulary(made["vocabulary"][0])
    model = made["teacher"][0].directory() / "model"
    tokenizer, embeddings = load_tokenizer(model), teacher_embeddings(model)
    means = []
    for ngram in vocabulary.ngrams:
        tokens = tokenizer(ngram, add_special_tokens=False)["input_ids"]
        means.append(embeddings[tokens].astype(np.float64).mean(axis=0))
    expected = np.array(means) - np.mean(means, axis=0)
    expected *= 0.3 / expected.std()
    tables = [load_file(one.path(FILE))["table"] for one in made["student"]]
    assert len(tables) == 3
    for table in tables:
        some = slice(0, 200)
        np.testing.assert_allclose(
            table[some] @ table[some].T, expected[some] @ expected[some].T, atol=1e-4
        )


def test_given_logits_have_no_embeddings_to_start_from(stocked: Workshop):
    given = json.loads(stocked.config().model_dump_json(exclude_none=True))
    del given["teacher"]
    given["logits"] = {"path": "given.parquet"}
    assert parse_config(given).student.start == "random"
    given["student"]["start"] = "teacher"
    with pytest.raises(ConfigError, match=r'start = "teacher" needs a \[teacher\] table'):
        parse_config(given)
