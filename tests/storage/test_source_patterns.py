"""Patterns become files in a stable order, and what matches nothing is said at once."""

from __future__ import annotations

import os

import pytest

from storage import SourceError, expand_sources
from storage.sources import format_of


@pytest.fixture
def tree(tmp_path):
    for name in (
        "b.txt",
        "a.txt",
        "c.JSONL.gz",
        "deep/er/d.csv",
        "deep/_temporary/x.txt",
        ".hidden.txt",
        "_SUCCESS",
        "notes.md",
        "odd[1].txt",
    ):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    return tmp_path


def names(patterns, base):
    return [source.name for source in expand_sources(patterns, base=str(base))]


def test_order_is_as_given_and_sorted_inside_a_glob_each_file_once(tree):
    assert names(["b.txt", "*.txt", "c.JSONL.gz"], tree) == [
        "b.txt",
        "a.txt",
        "odd[1].txt",
        "c.JSONL.gz",
    ]


def test_a_directory_is_searched_through_without_hidden_and_unknown_files(tree):
    expected = ["a.txt", "b.txt", "c.JSONL.gz", "deep/er/d.csv", "odd[1].txt"]
    assert names(["."], tree) == names([str(tree)], tree) == names(["**"], tree) == expected
    assert names(["deep"], tree) == names(["deep/*/*"], tree) == ["deep/er/d.csv"]


def test_a_file_whose_name_looks_like_a_glob_is_that_file(tree):
    assert names(["odd[1].txt"], tree) == ["odd[1].txt"]


def test_names_are_relative_to_the_base_or_absolute_outside(tree):
    assert names([f"{tree}/a.txt"], tree) == ["a.txt"]
    assert names([f"{tree}/a.txt"], tree / "deep") == [f"{tree}/a.txt"]
    assert names(["../a.txt"], tree / "deep") == [f"{tree}/a.txt"]


def test_without_a_base_patterns_start_from_the_current_directory(tree, monkeypatch):
    monkeypatch.chdir(tree)
    (source,) = expand_sources(["a.txt"])
    assert (source.name, source.url, source.bytes) == ("a.txt", f"{tree}/a.txt", 5)


def test_the_fingerprint_changes_with_size_or_time_only(tree):
    def fingerprint():
        return expand_sources(["a.txt"], base=str(tree))[0].fingerprint

    first = fingerprint()
    assert fingerprint() == first
    os.utime(tree / "a.txt", ns=(1, 1))
    touched = fingerprint()
    assert touched != first
    (tree / "a.txt").write_text("longer than before")
    os.utime(tree / "a.txt", ns=(1, 1))
    assert fingerprint() != touched


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("aa.txt", r"no such file; in .* there is: a\.txt"),
        ("nowhere/a.txt", "no such file; in .* there is"),
        ("*.csv", "no such file"),
        ("notes.md", "unknown suffix '.md'"),
        ("_SUCCESS", "unknown suffix ''"),
        ("*.md", "no file with a known suffix"),
        ("nosuch://x/a.txt", "no file system"),
    ],
)
def test_a_pattern_that_gives_nothing_is_an_error_that_helps(tree, pattern, message):
    with pytest.raises(SourceError, match=message):
        expand_sources(["a.txt", pattern], base=str(tree))


def test_an_empty_directory_is_an_error(tmp_path):
    with pytest.raises(SourceError, match="no such file"):
        expand_sources([str(tmp_path)])


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a.txt", ("txt", None)),
        ("A.TXT.GZ", ("txt", "gzip")),
        ("x/a.b.parquet.zst", ("parquet", "zstd")),
        ("https://x.org/a.tsv?download=1.0", ("tsv", None)),
        ("s3://b/a.csv", ("csv", None)),
    ],
)
def test_the_suffix_decides_the_format(name, expected):
    assert format_of(name) == expected


@pytest.mark.parametrize(
    "name", ["a", "a.gz", "a.bz2", "txt", "a.txt.bz2", "a.txt.gz.gz", ".txt/a"]
)
def test_an_unknown_suffix_lists_the_known_ones(name):
    with pytest.raises(SourceError, match=r"\.txt, \.jsonl, \.csv, \.tsv, \.parquet"):
        format_of(name)
