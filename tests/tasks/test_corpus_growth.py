"""A corpus that grows: shards that were there keep their content, so later stages keep their work.

The law that shard boundaries must obey is stated once more, slowly, in ``packed``.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from helpers.stages import Workshop
from helpers.tiny_task import texts, write_lines
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsedistill.text.deduplication import Kept
from tasks.corpus import Scan, _shard_contents

MORE = [f"more and more {text}" for text, _ in texts(60, seed=9)]


def packed(files: Sequence[int], size: int) -> list[int]:
    """Rows of every shard: a file that does not fit whole into the open shard starts a new one."""
    shards: list[int] = []
    filled = 0
    for rows in files:
        if filled and filled + rows > size:
            shards.append(filled)
            filled = 0
        while filled + rows >= size and rows:
            shards.append(size)
            rows -= size - filled
            filled = 0
        filled += rows
    return [*shards, filled] if filled else shards


def contents(workshop: Workshop, *sources: str, size: int = 100) -> list[str]:
    table = {"sources": list(sources), "rows_per_shard": size}
    made = workshop.make("corpus", corpus=table)["corpus"][0]
    return [shard["content"] for shard in made.statistics["shards"]]


def append(path: Path, lines: Sequence[str]) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.writelines(f"{line}\n" for line in lines)


@settings(deadline=None, max_examples=200)
@given(files=st.lists(st.integers(0, 25), max_size=8), size=st.integers(1, 12))
def test_shards_are_cut_as_the_slow_rule_says(files: list[int], size: int):
    total = sum(files)
    kept = Kept(np.ones(total, np.bool_), np.arange(total, dtype=np.uint64), 0, 0)
    found = list(_shard_contents(Scan(rows_per_source=files), kept, size))
    assert [rows for _, rows in found] == packed(files, size)
    assert len({content for content, _ in found}) == len(found)


@settings(deadline=None, max_examples=200)
@given(
    files=st.lists(st.integers(0, 25), min_size=1, max_size=6),
    more=st.integers(0, 30),
    size=st.integers(1, 12),
)
def test_appended_rows_change_no_shard_but_the_last(files: list[int], more: int, size: int):
    total = sum(files) + more
    kept = Kept(np.ones(total, np.bool_), np.arange(total, dtype=np.uint64), 0, 0)
    before = list(_shard_contents(Scan(rows_per_source=files), kept, size))
    grown = [*files[:-1], files[-1] + more]
    after = list(_shard_contents(Scan(rows_per_source=grown), kept, size))
    assert after[: len(before[:-1])] == before[:-1]


def test_appended_lines_change_only_the_last_shard(workshop: Workshop):
    before = contents(workshop, "corpus.txt", size=250)
    append(workshop.data / "corpus.txt", MORE)
    after = contents(workshop, "corpus.txt", size=250)
    assert (len(before), len(after)) == (3, 3)
    assert after[:2] == before[:2]
    assert after[2] != before[2]


def test_lines_appended_after_a_full_shard_only_add_one(workshop: Workshop):
    before = contents(workshop, "corpus.txt")
    append(workshop.data / "corpus.txt", MORE)
    after = contents(workshop, "corpus.txt")
    assert after[: len(before)] == before
    assert len(after) == len(before) + 1


def test_a_file_more_leaves_full_shards_alone(workshop: Workshop):
    before = contents(workshop, "*.txt")
    write_lines(workshop.data / "later.txt", MORE)
    after = contents(workshop, "*.txt")
    assert after[: len(before)] == before
    assert len(after) == len(before) + 1


def test_appending_to_a_large_file_changes_no_shard_of_the_others(workshop: Workshop):
    lines = (workshop.data / "corpus.txt").read_text().splitlines()
    write_lines(workshop.data / "part-1.txt", lines[:250])
    write_lines(workshop.data / "part-2.txt", lines[250:])
    before = contents(workshop, "part-*.txt")
    append(workshop.data / "part-1.txt", MORE[:20])
    after = contents(workshop, "part-*.txt")
    # 100 100 50 | 100 100 100 50: the third shard only.
    assert [a == b for a, b in zip(before, after, strict=True)] == [
        True, True, False, True, True, True, True,
    ]  # fmt: skip


def test_small_files_share_shards(workshop: Workshop):
    lines = (workshop.data / "corpus.txt").read_text().splitlines()
    for number in range(12):
        write_lines(workshop.data / f"small-{number:02}.txt", lines[20 * number : 20 * number + 20])
    table = {"sources": ["small-*.txt"], "rows_per_shard": 100}
    made = workshop.make("corpus", corpus=table)["corpus"][0]
    assert [shard["rows"] for shard in made.statistics["shards"]] == [100, 100, 40]


def test_boundaries_follow_from_content_not_from_names_or_times(workshop: Workshop):
    before = contents(workshop, "corpus.txt")
    (workshop.data / "corpus.txt").rename(workshop.data / "another name.txt")
    (workshop.data / "another name.txt").touch()
    assert contents(workshop, "another name.txt") == before


def test_shards_that_are_there_are_not_written_again(workshop: Workshop):
    contents(workshop, "corpus.txt")
    before = {m.key: m.created for m in workshop.store.artifacts("corpus_shard")}
    append(workshop.data / "corpus.txt", MORE)
    contents(workshop, "corpus.txt")
    after = {m.key: m.created for m in workshop.store.artifacts("corpus_shard")}
    assert {key: after[key] for key in before} == before
    assert len(after) == len(before) + 1


def test_growth_costs_logits_counts_and_nothing_else_of_the_new_shard(stocked: Workshop):
    """Features are all new, because the vocabulary is; counts and logits are not."""
    before = {kind: stocked.keys(kind) for kind in ("ngrams", "logits")}
    append(stocked.data / "corpus.txt", MORE)
    after = {kind: stocked.keys(kind) for kind in ("ngrams", "logits")}
    for kind in before:
        assert len(set(after[kind]) - set(before[kind])) == 1
        assert set(before[kind]) <= set(after[kind])
