"""A table in two processes learns what the same table in one does."""

import numpy as np
import pytest
from sharded_runs import run, run_in_processes

from sparsedistill.errors import ConfigError
from sparsedistill.training.sharded_table import train_in_processes


def assert_same(found, expected, *, atol=1e-4):
    # A run that goes on sees the end of the curve alone.
    expected = {**expected, "losses": expected["losses"][-len(found["losses"]) :]}
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name].dtype == value.dtype
        np.testing.assert_allclose(found[name], value, atol=atol, err_msg=name)


@pytest.mark.parametrize(
    ("shape", "training"),
    [
        ({}, {"feature_dropout": 0.1, "dropout": 0.1}),
        (
            {"pooling": "sum", "layers": 2},
            {"clip": 0.1, "table_decay": 0.1, "second_moment": "row"},
        ),
    ],
    ids=["mean", "sum, clipped, decaying, row-wise"],
)
def test_losses_and_weights_are_those_of_one_process(tmp_path, shape, training):
    how = {"shape": shape, "training": training}
    alone = run(**how)
    together = run_in_processes(2, tmp_path, **how)
    assert len(together["losses"]) == 3
    np.testing.assert_array_equal(together["start/table"], alone["start/table"])
    assert_same(together, alone)


def test_a_run_of_three_processes_goes_on_in_one_after_a_kill(tmp_path):
    how = {"training": {"feature_dropout": 0.1}}
    alone = run(**how)
    state = tmp_path / "state"
    state.mkdir()
    assert run_in_processes(3, tmp_path, **how, directory=state, killed_after=17) == {}
    assert (state / "checkpoint.json").exists()
    assert_same(run(**how, directory=state), alone)


@pytest.mark.slow
def test_a_run_of_one_process_goes_on_in_two_after_a_kill(tmp_path):
    how = {"shape": {"table_type": "bfloat16"}}
    alone = run(**how)
    state = tmp_path / "state"
    state.mkdir()
    assert run(**how, directory=state, killed_after=25) == {}
    together = run_in_processes(2, tmp_path, **how, directory=state)
    # bfloat16 is rounded by other chances there; only losses and answers are alike.
    np.testing.assert_allclose(together["losses"], alone["losses"][-1:], atol=0.02)
    np.testing.assert_allclose(together["logits"], alone["logits"], atol=0.2)


def test_without_a_group_of_processes_it_says_how_to_start_one():
    with pytest.raises(ConfigError, match="torchrun"):
        train_in_processes(lambda make_table: None)
