"""Random bags that hold what goes wrong first, shared by the tests of students and training."""

import numpy as np

from sparsedistill.bags import Bags


def random_bags(rng, count, rows, *, longest=8):
    """Bags with an empty one, repeated rows, and row 0 in all that are not empty."""
    bags = []
    for number in range(count):
        bag = rng.integers(0, rows, rng.integers(0, longest)).tolist()
        bags.append([] if number == count // 2 else [0, *bag, *bag[:1]])
    return bags_of(bags)


def bags_of(lists):
    offsets = np.cumsum([0, *map(len, lists)])
    return Bags(np.array([row for bag in lists for row in bag], np.int32), offsets)
