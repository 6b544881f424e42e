"""Successive halving: what goes on is decided by scores, when it ends by the clock."""

from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from toy_runs import RECIPE
from toy_task import ToyStudent, toy_examples

from sparsedistill.errors import ConfigError, DataError
from sparsedistill.training import search as module
from sparsedistill.training.search import FACTOR, Candidate, Rung, promoted, search, short_runs


class Runs:
    """Runs with scores from a table, that take a second an example by the clock that is set up."""

    def __init__(self, monkeypatch, score, *, seconds=lambda candidate: 1.0):
        self.now, self.calls, self._score, self._seconds = 0.0, [], score, seconds
        monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: self.now))

    def __call__(self, candidate, examples):
        self.calls.append((candidate, examples))
        self.now += examples * self._seconds(candidate)
        return self._score(candidate)


def test_a_third_goes_on_to_runs_three_times_as_long_until_one_is_left(monkeypatch):
    runs = Runs(monkeypatch, score=lambda candidate: -abs(candidate - 5))
    found = search(range(9), runs, examples=10)
    assert found.rungs == (
        Rung(10, tuple(range(9)), (-5, -4, -3, -2, -1, 0, -1, -2, -3)),
        Rung(30, (5, 4, 6), (0, -1, -1)),
    )
    assert (found.best, found.complete, found.seconds) == (5, True, 180)


def test_the_longest_runs_decide(monkeypatch):
    runs = Runs(monkeypatch, score=lambda candidate: 0)
    runs._score = lambda candidate: {10: [3, 2, 1], 30: [1, 2]}[runs.calls[-1][1]][candidate]
    assert search(range(3), runs, examples=10).best == 0  # one of three: the first rung decided
    runs = Runs(monkeypatch, score=None)
    runs._score = lambda candidate: (candidate < 2) if runs.calls[-1][1] == 10 else candidate
    assert search(range(4), runs, examples=10).best == 1


@pytest.mark.parametrize(
    ("budget", "tried", "best", "complete"),
    [
        (0, [1], 0, False),
        (10, [1], 0, False),
        (45, [4], 3, False),
        (90, [9], 8, False),
        (119, [9], 8, False),
        (120, [9, 1], 8, False),
        (179, [9, 2], 8, False),
        (180, [9, 3], 8, True),
        (1e9, [9, 3], 8, True),
    ],
)
def test_no_run_is_begun_that_would_not_end_in_time(monkeypatch, budget, tried, best, complete):
    runs = Runs(monkeypatch, score=lambda candidate: candidate)
    found = search(range(9), runs, examples=10, budget=budget)
    assert [len(rung.scores) for rung in found.rungs] == tried
    assert (found.best, found.complete) == (best, complete)
    assert found.seconds <= max(budget, 10)


def test_a_long_run_is_expected_to_take_what_its_own_short_one_did(monkeypatch):
    # The wide candidate is four times as slow: its second run would end too late.
    runs = Runs(monkeypatch, score=lambda wide: wide, seconds=lambda wide: 4 if wide else 1)
    found = search([False, False, False, True], runs, examples=10, budget=70 + 119)
    assert [rung.scores for rung in found.rungs] == [(0, 0, 0, 1)]
    assert found.best == 3
    assert found.rungs[0].candidates == (0, 1, 2, 3)


def test_of_equal_scores_the_candidate_named_first_wins(monkeypatch):
    runs = Runs(monkeypatch, score=lambda candidate: 0.5)
    assert search(range(5), runs, examples=1).best == 0


def test_a_candidate_that_cannot_be_trained_is_the_worst(monkeypatch):
    def score(candidate):
        if candidate == 0:
            raise DataError("the loss at update 3 is nan")
        return candidate

    found = search(range(3), Runs(monkeypatch, score), examples=1)
    assert found.rungs[0].scores == (None, 1, 2)
    assert found.best == 2
    with pytest.raises(DataError, match=r"none of the candidates.* loss at update 3 is nan"):
        search([0, 0], Runs(monkeypatch, score), examples=1)


def test_where_all_that_went_on_fail_the_rung_before_decides(monkeypatch):
    def score(candidate):
        if runs.calls[-1][1] > 1:
            raise DataError("the loss at update 9 is nan")
        return candidate

    runs = Runs(monkeypatch, score)
    assert search(range(6), runs, examples=1).best == 5


@pytest.mark.parametrize(("candidates", "examples"), [([], 1), ([1], 0)])
def test_a_search_among_nothing_is_refused(candidates, examples):
    with pytest.raises(ConfigError):
        search(candidates, lambda *_: 0.0, examples=examples)


@settings(deadline=None)
@given(st.lists(st.one_of(st.none(), st.integers(0, 3)), min_size=1, max_size=20))
def test_who_goes_on_scores_at_least_as_well_as_who_does_not(scores):
    rung = Rung(1, tuple(range(100, 100 + len(scores))), tuple(scores))
    on = promoted(rung)
    by_number = dict(zip(rung.candidates, scores, strict=True))
    left = [score for number, score in by_number.items() if number not in on and score is not None]
    assert len(on) <= -(-len(scores) // FACTOR)
    assert all(by_number[number] >= max(left, default=0) for number in on)


class TestShortRuns:
    def run(self, candidates, **options):
        made = []

        def make(candidate):
            made.append(candidate)
            return ToyStudent()

        data, dev = toy_examples(40, seed=0), toy_examples(200, seed=1, labels=True)
        run = short_runs(make, data, None, RECIPE, dev=dev, seed=5)
        return search(candidates, run, examples=60, **options), made

    def test_find_a_learning_rate_that_learns_the_toy_task_the_same_every_time(self):
        candidates = [Candidate(rate, 4) for rate in (1e-4, 3e38, 10.0, 1e-2)]
        found, made = self.run(candidates)
        assert candidates[found.best].learning_rate == 10.0
        assert found.rungs[0].scores[1] is None
        assert made[: len(candidates)] == candidates
        assert self.run(candidates)[0].rungs == found.rungs

    def test_are_as_long_for_every_batch_size(self):
        steps = []

        class Counting(ToyStudent):
            def step(self, batch, targets, objective, *, update, learning_rate):
                steps.append((update, len(targets), learning_rate))
                return super().step(
                    batch, targets, objective, update=update, learning_rate=learning_rate
                )

        data, dev = toy_examples(40, seed=0), toy_examples(200, seed=1, labels=True)
        run = short_runs(lambda _: Counting(), data, None, RECIPE, dev=dev, seed=5)
        run(Candidate(0.5, 8), 80)
        assert (len(steps), sum(count for _, count, _ in steps)) == (10, 80)
        assert [rate for _, _, rate in steps][:2] == [0.5, 0.5]
        steps.clear()
        run(Candidate(0.5, 20), 80)
        assert sum(count for _, count, _ in steps) == 80
        assert steps[-1][2] < steps[0][2]
