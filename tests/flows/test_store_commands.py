"""``store ls | show | verify | lineage | gc`` over a store that holds a whole run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from helpers.tiny_task import run_config

from flows.cli import main
from flows.config import parse_config
from flows.current import promote
from flows.delivery import RunResult
from flows.inline import run_inline
from storage import ArtifactStore, Recipe

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


def test_verify_names_what_is_damaged_and_has_the_next_run_make_it_again(
    own_store: Path, tiny_data: Path, capsys: Captured
):
    key = damage(own_store, "logits", "logits.parquet")
    assert main(["store", "verify", "--store", str(own_store)]) == 1
    said = "".join(capsys.readouterr())
    assert said.count(f"logits/{key}: logits.parquet: ") == 1
    assert "33 artifacts read, 1 damaged (a run that needs them makes them again)" in said
    result = run_inline(parse_config(run_config(tiny_data, own_store)))
    assert result.computed() == 1
    assert main(["store", "verify", "--store", str(own_store)]) == 0


def gc(store: Path, *options: str) -> list[str]:
    return ["store", "gc", "--store", str(store), *options]


def test_gc_of_a_whole_run_finds_nothing_and_says_why(own_store: Path, capsys: Captured):
    assert main(gc(own_store, "--older-than", "0")) == 0
    said = capsys.readouterr().out
    assert "nothing to remove" in said
    assert "the run tiny of 20" in said
    assert ArtifactStore(own_store).artifacts("corpus_shard")


def test_gc_frees_what_no_run_needs_only_when_asked(own_store: Path, capsys: Captured):
    store = ArtifactStore(own_store)
    with store.create(Recipe("features", 1, {"of": "nothing"})) as writer:
        writer.path("data").write_bytes(b"x" * 5000)
    assert main(gc(own_store)) == 0
    assert "nothing to remove" in capsys.readouterr().out
    assert main(gc(own_store, "--older-than", "0h")) == 0
    said = capsys.readouterr().out
    assert "features artifact" in said
    assert "nothing was removed: --delete frees 5." in said
    assert main(gc(own_store, "--older-than", "0", "--delete")) == 0
    assert "kB freed" in capsys.readouterr().out
    assert len(store.artifacts()) == 33
    assert all(found.ok for found in store.verify())


def test_gc_keeps_the_last_runs_of_each_name(
    own_store: Path, tiny_data: Path, tiny_run: RunResult, capsys: Captured
):
    run_inline(parse_config(run_config(tiny_data, own_store, evaluation={"examples": 2})))
    assert len(ArtifactStore(own_store).artifacts("report")) == 2
    assert main(gc(own_store, "--older-than", "0", "--keep-runs", "1", "--delete")) == 0
    (left,) = ArtifactStore(own_store).artifacts("report")
    assert left.key != tiny_run.artifacts["report"][0].key
    result = run_inline(parse_config(run_config(tiny_data, own_store, evaluation={"examples": 2})))
    assert result.computed() == 0


def test_gc_keeps_the_current_model_whatever_its_age(
    own_store: Path, tiny_data: Path, tiny_run: RunResult, capsys: Captured
):
    store, first = ArtifactStore(own_store), tiny_run.artifacts["report"][0].key
    promote(store, "tiny", report=first)
    config = parse_config(run_config(tiny_data, own_store, evaluation={"examples": 2}))
    run_inline(config)
    assert main(gc(own_store, "--older-than", "0", "--keep-runs", "1", "--delete")) == 0
    said = capsys.readouterr().out
    assert "the current model of tiny" in said
    assert {m.key for m in store.artifacts("report")} >= {first}
    assert run_inline(parse_config(run_config(tiny_data, own_store))).computed() == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--older-than", "soon"], "--older-than 'soon' is no time; write it as 36h, 2d or 0"),
        (["--unfinished", "-1d"], "--unfinished '-1d' is no time"),
    ],
)
def test_a_time_that_is_none_is_refused(
    own_store: Path, options: list[str], message: str, capsys: Captured
):
    assert main(gc(own_store, f"{options[0]}={options[1]}")) == 1
    assert message in capsys.readouterr().err


def test_a_run_at_least_is_kept(own_store: Path, capsys: Captured):
    with pytest.raises(SystemExit):
        main(gc(own_store, "--keep-runs", "0"))
    assert "a whole number, 1 or more" in capsys.readouterr().err


@pytest.mark.parametrize("action", ["ls", "gc", "verify"])
def test_a_url_with_a_password_is_refused_and_not_repeated(action: str, capsys: Captured):
    assert main(["store", action, "--store", "s3://KEY:hush/hush@bucket/runs"]) == 1
    said = capsys.readouterr()
    assert "holds a password" in said.err
    assert "hush" not in said.err + said.out


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


@pytest.mark.parametrize("action", ["ls", "gc", "verify"])
def test_a_store_that_is_not_there_is_not_made_by_looking_at_it(
    tmp_path: Path, action: str, capsys: Captured
):
    assert main(["store", action, "--store", str(tmp_path / "typo")]) == 1
    assert str(tmp_path / "typo") in capsys.readouterr().err
    assert not (tmp_path / "typo").exists()


def test_verify_tells_what_a_newer_version_wrote_from_what_is_damaged(
    tmp_path: Path, capsys: Captured
):
    store = ArtifactStore(tmp_path / "store")
    recipes = [Recipe("teacher", 1, {"n": number}) for number in range(2)]
    for recipe in recipes:
        with store.create(recipe) as writer:
            writer.path("a.txt").write_text("x")
    path = tmp_path / "store" / "teacher" / recipes[0].key / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format": 99}))
    assert main(["store", "verify", "--store", str(tmp_path / "store")]) == 1
    said = capsys.readouterr().out
    assert f"the manifest of teacher/{recipes[0].key} has format 99" in said
    assert "1 artifacts read, 0 damaged\n" in said
    assert "1 not read: a newer version of sparsedistill wrote them" in said


@pytest.mark.parametrize("action", ["ls", "verify"])
def test_a_kind_that_there_is_not_is_refused_with_those_there_are(
    action: str, tiny_store: Path, capsys: Captured
):
    assert main(["store", action, "nokind", "--store", str(tiny_store)]) == 1
    said = capsys.readouterr().err
    assert "no artifact is of kind 'nokind'; there are baseline, corpus, " in said
