"""The numbers that were promised: 10**5 changed models and 10**6 changed texts."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from test_hostile_models import work_through

PARTS = 20

pytestmark = [pytest.mark.slow, pytest.mark.timeout(7200)]


def in_parts(kind, count):
    """Seeds that the quick tests have not seen, in several processes, two at a time."""
    size = count // PARTS
    starts = range(10**9, 10**9 + count, size)
    with ThreadPoolExecutor(2) as pool:
        parts = list(pool.map(lambda start: work_through(kind, start, start + size), starts))
    return {key: sum(part.get(key, 0) for part in parts) for part in parts for key in part}


def test_a_hundred_thousand_changed_models_crash_nothing_and_pass_for_nothing_else():
    outcomes = in_parts("models", 100_000)
    assert sum(outcomes.values()) == 100_000


def test_a_million_changed_texts_crash_nothing_and_get_the_right_answers():
    assert in_parts("texts", 1_000_000) == {"texts": 1_000_000}
