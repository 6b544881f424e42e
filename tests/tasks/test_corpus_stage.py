"""The corpus: what becomes a row, what is dropped and counted, and what stops the run."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from helpers.stages import Workshop
from helpers.tiny_task import CORPUS_ROWS, write_lines

from sparsedistill.errors import DataError
from storage import Artifact, SourceError
from tasks import corpus
from tasks.corpus import QUARANTINE_FILE
from tasks.shards import read_shard


def rows_of(workshop: Workshop, made: Artifact) -> list[str]:
    """All rows of the corpus, in order."""
    shards = [read_shard(workshop.store, shard.input) for shard in corpus.shards(made)]
    return [text for shard in shards for text in shard.texts]


def corpus_of(workshop: Workshop, *sources: str, **settings: object) -> Artifact:
    table = {"sources": list(sources), "rows_per_shard": 100, **settings}
    return workshop.make("corpus", corpus=table)["corpus"][0]


def test_every_line_is_a_row_in_shards_of_the_size_asked_for(workshop: Workshop):
    made = workshop.make("corpus")["corpus"][0]
    lines = (workshop.data / "corpus.txt").read_text().splitlines()
    assert rows_of(workshop, made) == lines
    assert [shard["rows"] for shard in made.statistics["shards"]] == [200, 200, 200]
    assert made.statistics["rows"] == made.statistics["read"] == CORPUS_ROWS
    assert set(made.statistics["dropped"].values()) == {0}


def test_a_corpus_smaller_than_a_shard_is_one_shard(workshop: Workshop):
    write_lines(workshop.data / "few.txt", ["first few words", "second few words"])
    made = corpus_of(workshop, "few.txt")
    assert [shard["rows"] for shard in made.statistics["shards"]] == [2]


def test_duplicates_across_all_files_are_dropped_and_counted(workshop: Workshop):
    write_lines(workshop.data / "one.txt", ["apple pie", "plum pie", "apple pie"])
    write_lines(workshop.data / "two.txt", ["plum pie", "pear pie", "Apple pie"])
    made = corpus_of(workshop, "one.txt", "two.txt")
    assert rows_of(workshop, made) == ["apple pie", "plum pie", "pear pie", "Apple pie"]
    assert made.statistics["dropped"]["duplicate"] == 2


def test_texts_of_dev_and_test_are_dropped_and_counted_those_of_train_stay(workshop: Workshop):
    def first_text(split: str) -> str:
        return (workshop.data / f"{split}.csv").read_text().splitlines()[1].partition(",")[0]

    held = [first_text("dev"), first_text("test")]
    write_lines(workshop.data / "leak.txt", [*held, first_text("train"), "something else", held[0]])
    made = corpus_of(workshop, "leak.txt")
    assert rows_of(workshop, made) == [first_text("train"), "something else"]
    assert made.statistics["dropped"] == {"empty": 0, "bad": 0, "duplicate": 1, "held_out": 2}


def test_empty_rows_are_dropped_and_counted(workshop: Workshop):
    write_lines(workshop.data / "gaps.txt", ["one", "", "   ", "\t", "two"])
    made = corpus_of(workshop, "gaps.txt")
    assert rows_of(workshop, made) == ["one", "two"]
    assert made.statistics["dropped"]["empty"] == 3


def test_every_format_and_compression_gives_the_same_rows(workshop: Workshop):
    text = ["red apple", "blue, plum", 'a "quoted" pear']
    data = workshop.data
    plain = "".join(f"{line}\n" for line in text).encode()
    (data / "a.txt").write_bytes(plain)
    (data / "b.txt.gz").write_bytes(gzip.compress(plain))
    (data / "c.txt.zst").write_bytes(zstandard.compress(plain))
    (data / "d.jsonl").write_text("".join(json.dumps({"text": t}) + "\n" for t in text))
    (data / "e.csv").write_text('text\nred apple\n"blue, plum"\n"a ""quoted"" pear"\n')
    (data / "f.tsv").write_text('id\ttext\n1\tred apple\n2\tblue, plum\n3\t"a ""quoted"" pear"\n')
    pq.write_table(pa.table({"text": text}), data / "g.parquet")
    contents = set()
    for name in ("a.txt", "b.txt.gz", "c.txt.zst", "d.jsonl", "e.csv", "f.tsv", "g.parquet"):
        made = corpus_of(workshop, name)
        assert rows_of(workshop, made) == text, name
        contents.add(made.statistics["shards"][0]["content"])
    assert len(contents) == 1


def test_line_ends_of_windows_are_line_ends(workshop: Workshop):
    (workshop.data / "dos.txt").write_bytes(b"first row\r\nsecond row\r\n")
    assert rows_of(workshop, corpus_of(workshop, "dos.txt")) == ["first row", "second row"]


def test_documents_are_cut_into_their_sentences(workshop: Workshop):
    text = "Dr. Who came at 3.5 p.m. today. He left! Did he?"
    write_lines(workshop.data / "long.txt", [text, "No stop at the end"])
    made = corpus_of(workshop, "long.txt", split_sentences=True)
    assert rows_of(workshop, made) == [
        "Dr. Who came at 3.5 p.m. today.", "He left!", "Did he?", "No stop at the end",
    ]  # fmt: skip


def test_reading_stops_after_max_rows(workshop: Workshop):
    made = corpus_of(workshop, "corpus.txt", max_rows=150)
    lines = (workshop.data / "corpus.txt").read_text().splitlines()
    assert rows_of(workshop, made) == lines[:150]
    assert made.statistics["read"] == 150


def test_bad_rows_go_to_quarantine_with_row_and_reason(workshop: Workshop):
    good = [f"good row {i}".encode() for i in range(400)]
    bad = [b"broken \xff bytes", b"with \0 inside", b"x" * 10_000_000]
    (workshop.data / "mixed.txt").write_bytes(b"\n".join([*good[:5], *bad, *good[5:]]) + b"\n")
    made = corpus_of(workshop, "mixed.txt")
    lines = made.path(QUARANTINE_FILE).read_bytes().splitlines()
    found = [(r["source"], r["row"], r["reason"]) for r in map(json.loads, lines)]
    assert found == [
        ("mixed.txt", 6, "invalid UTF-8"),
        ("mixed.txt", 7, "NUL character"),
        ("mixed.txt", 8, "longer than 1,048,576 bytes"),
    ]
    assert made.statistics["dropped"]["bad"] == 3
    assert made.statistics["read"] == 403
    assert rows_of(workshop, made) == [row.decode() for row in good]


def test_the_quarantine_keeps_no_more_rows_than_people_read(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(corpus, "_QUARANTINE_ROWS", 4)
    (workshop.data / "bad.txt").write_bytes(b"\xff\n" * 10 + b"good\n")
    made = corpus_of(workshop, "bad.txt", max_bad_share=1.0)
    assert len(made.path(QUARANTINE_FILE).read_bytes().splitlines()) == 4
    assert made.statistics["dropped"]["bad"] == 10


def test_more_bad_rows_than_the_cap_stop_the_run_and_name_the_first(workshop: Workshop):
    good = b"".join(b"good row %d\n" % i for i in range(98))
    (workshop.data / "bad.txt").write_bytes(good + b"\xff\n\xfe\n")
    message = r"2 of 100 rows of the corpus are bad, more than .* 1\.0%.*bad\.txt row 99: invalid"
    with pytest.raises(DataError, match=message):
        corpus_of(workshop, "bad.txt")
    assert workshop.store.artifacts("corpus") == []
    assert workshop.store.artifacts("corpus_shard") == []


def test_as_many_bad_rows_as_the_cap_do_not_stop_the_run(workshop: Workshop):
    good = b"".join(b"good row %d\n" % i for i in range(98))
    (workshop.data / "bad.txt").write_bytes(good + b"\xff\n\xfe\n")
    made = corpus_of(workshop, "bad.txt", max_bad_share=0.02)
    assert made.statistics["rows"] == 98


def test_a_missing_source_is_refused_at_once_with_the_nearest_name(workshop: Workshop):
    with pytest.raises(SourceError, match=r"corpsu\.txt: no such file; .*corpus\.txt"):
        corpus_of(workshop, "corpsu.txt")


def test_an_empty_source_file_is_refused_by_name(workshop: Workshop):
    (workshop.data / "empty.txt").write_bytes(b"")
    with pytest.raises(SourceError, match=r"empty\.txt: .*empty"):
        corpus_of(workshop, "empty.txt")


def test_a_corpus_of_blank_lines_is_empty_and_says_what_was_dropped(workshop: Workshop):
    write_lines(workshop.data / "blank.txt", ["", " ", ""])
    with pytest.raises(DataError, match=r"the corpus is empty: 3 rows were read.*'empty': 3"):
        corpus_of(workshop, "blank.txt")


def test_a_corpus_of_held_out_texts_only_is_empty(workshop: Workshop):
    rows = (workshop.data / "test.csv").read_text().splitlines()[1:]
    write_lines(workshop.data / "leak.txt", [row.partition(",")[0] for row in rows])
    with pytest.raises(DataError, match=r"the corpus is empty: .*'held_out': 40"):
        corpus_of(workshop, "leak.txt")


def test_a_wrong_text_column_names_those_there_are(workshop: Workshop):
    (workshop.data / "c.csv").write_text("sentence\nx\n")
    with pytest.raises(SourceError, match=r"c\.csv, row 1: no column 'text'.*'sentence'"):
        corpus_of(workshop, "c.csv")


def test_a_source_that_changes_between_the_two_readings_is_refused(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
):
    """The second reading must find what the first decided on, or shards would lie about content."""
    path = workshop.data / "corpus.txt"
    scan = corpus.scan_sources

    def scan_then_change(*args: object) -> object:
        found = scan(*args)
        path.write_text(path.read_text().replace("the", "tho"))
        return found

    monkeypatch.setattr(corpus, "scan_sources", scan_then_change)
    with pytest.raises(DataError, match="a source of the corpus changed while it was read"):
        workshop.make("corpus")


def test_a_source_that_shrinks_between_the_two_readings_is_refused(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
):
    path = workshop.data / "corpus.txt"
    scan = corpus.scan_sources

    def scan_then_cut(*args: object) -> object:
        found = scan(*args)
        write_lines(path, path.read_text().splitlines()[:250])
        return found

    monkeypatch.setattr(corpus, "scan_sources", scan_then_cut)
    with pytest.raises(DataError, match="a source of the corpus changed while it was read"):
        workshop.make("corpus")


def test_a_preview_counts_as_the_run_will_and_writes_nothing(workshop: Workshop):
    (job,) = workshop.jobs("corpus")
    before = sorted(Path(workshop.store.url).rglob("*"))
    preview = corpus.preview(job)
    assert sorted(Path(workshop.store.url).rglob("*")) == before
    assert workshop.make("corpus")["corpus"][0].statistics == preview


def test_near_duplicates_are_dropped_and_counted_where_asked_for(workshop: Workshop):
    held = (workshop.data / "dev.csv").read_text().splitlines()[1].partition(",")[0]
    rows = ["Apple pie?", "42", "apple pie", "APPLE-PIE 2", "43", "plum pie", "apple pie"]
    write_lines(workshop.data / "near.txt", [*rows, f"{held}!"])
    made = corpus_of(workshop, "near.txt", near_duplicates="drop")
    assert rows_of(workshop, made) == ["Apple pie?", "42", "43", "plum pie"]
    assert made.statistics["dropped"] == {
        "empty": 0, "bad": 0, "duplicate": 1, "held_out": 0, "near_duplicate": 3,
    }  # fmt: skip
    (job,) = workshop.jobs("corpus", corpus={"sources": ["near.txt"], "near_duplicates": "drop"})
    assert corpus.preview(job)["dropped"] == made.statistics["dropped"]


def test_a_corpus_that_keeps_near_duplicates_is_the_one_it_always_was(workshop: Workshop):
    """The key and the bytes of a configuration from before there was a choice."""
    (plain,) = workshop.jobs("corpus")
    (said,) = workshop.jobs("corpus", corpus={"near_duplicates": "keep"})
    assert said.recipe.key == plain.recipe.key
    assert "near_duplicates" not in plain.recipe.config
    made = workshop.make("corpus")["corpus"][0]
    assert set(made.statistics["dropped"]) == {"empty", "bad", "duplicate", "held_out"}
    (dropping,) = workshop.jobs("corpus", corpus={"near_duplicates": "drop"})
    assert dropping.recipe.key != plain.recipe.key
