"""``store ls | show | verify | lineage`` over a store that holds a whole run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from flows.cli import main
from flows.delivery import RunResult
from storage import ArtifactStore

Captured = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def wide_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "160")


def damage(store: Path, kind: str, name: str) -> str:
    """Flip one byte and keep the size; returns the artifact's key."""
    key = ArtifactStore(store).artifacts(kind)[0].key
    path = store / kind / key / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.chmod(0o644)
    path.write_bytes(bytes(content))
    return key


def test_ls_lists_every_artifact(tiny_store: Path, capsys: Captured):
    assert main(["store", "ls", "--store", str(tiny_store)]) == 0
    lines = capsys.readouterr().out.splitlines()[1:]
    kinds = [line.split("/")[0] for line in lines]
    assert len(lines) == 33
    assert kinds == sorted(kinds)
    assert kinds.count("corpus_shard") == 3


def test_ls_of_one_kind(tiny_store: Path, tiny_run: RunResult, capsys: Captured):
    assert main(["store", "ls", "teacher", "--store", str(tiny_store)]) == 0
    (line,) = capsys.readouterr().out.splitlines()[1:]
    assert line.split()[0] == f"teacher/{tiny_run.artifacts['teacher'][0].key[:12]}"


def test_show_prints_the_manifest(tiny_store: Path, tiny_run: RunResult, capsys: Captured):
    vocabulary = tiny_run.artifacts["vocabulary"][0]
    assert (
        main(["store", "show", f"vocabulary/{vocabulary.key[:6]}", "--store", str(tiny_store)]) == 0
    )
    manifest = json.loads(capsys.readouterr().out)
    assert manifest["key"] == vocabulary.key
    assert {"config", "inputs", "files", "statistics", "seconds", "tool_version"} <= set(manifest)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("vocabulary", "write it as kind/key"),
        ("vocabulary/0000", "no vocabulary artifact starts with 0000; there are: "),
        ("nonsense/00", "there is no nonsense artifact; kinds in this store: baseline, corpus"),
        ("vocabulary/../x", "error: "),
    ],
)
def test_an_artifact_that_is_not_there_is_answered_with_those_that_are(
    tiny_store: Path, capsys: Captured, name: str, message: str
):
    assert main(["store", "show", name, "--store", str(tiny_store)]) == 1
    assert message in capsys.readouterr().err


def test_verify_of_a_sound_store_says_how_much_was_read(tiny_store: Path, capsys: Captured):
    assert main(["store", "verify", "--store", str(tiny_store)]) == 0
    assert capsys.readouterr().out == "33 artifacts read, 0 damaged\n"


def test_verify_names_what_is_damaged_and_leaves_it(own_store: Path, capsys: Captured):
    key = damage(own_store, "logits", "logits.parquet")
    assert main(["store", "verify", "--store", str(own_store)]) == 1
    said = capsys.readouterr().out
    assert f"logits/{key}: logits.parquet: " in said
    assert "33 artifacts read, 1 damaged (see store verify --remove)" in said
    assert (own_store / "logits" / key).is_dir()


def test_verify_removes_what_is_damaged_when_asked_so_that_the_next_run_makes_it(
    own_store: Path, capsys: Captured
):
    key = damage(own_store, "logits", "logits.parquet")
    arguments = ["store", "verify", "logits", "--store", str(own_store)]
    assert main([*arguments, "--remove"]) == 1
    assert "6 artifacts read, 1 damaged (removed; the next run" in capsys.readouterr().out
    assert not (own_store / "logits" / key).exists()
    assert main(arguments) == 0


def test_lineage_goes_back_to_the_sources(tiny_store: Path, tiny_run: RunResult, capsys: Captured):
    key = tiny_run.artifacts["package"][0].key
    assert main(["store", "lineage", f"package/{key}", "--store", str(tiny_store)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"package/{key[:12]}"
    for part in ("finetune/", "student/", "teacher/", "corpus_shard/", "logits/", "dataset/"):
        assert any(part in line for line in lines), part
    assert not any("no longer in the store" in line for line in lines)


def test_lineage_marks_what_was_removed(own_store: Path, tiny_run: RunResult, capsys: Captured):
    teacher = tiny_run.artifacts["teacher"][0].key
    ArtifactStore(own_store).remove("teacher", teacher)
    key = tiny_run.artifacts["logits"][0].key
    assert main(["store", "lineage", f"logits/{key}", "--store", str(own_store)]) == 0
    assert f"teacher/{teacher[:12]}  (no longer in the store)" in capsys.readouterr().out


@pytest.mark.parametrize("action", ["ls", "verify"])
def test_a_store_that_is_not_there_is_not_made_by_looking_at_it(
    tmp_path: Path, action: str, capsys: Captured
):
    assert main(["store", action, "--store", str(tmp_path / "typo")]) == 1
    assert str(tmp_path / "typo") in capsys.readouterr().err
    assert not (tmp_path / "typo").exists()
