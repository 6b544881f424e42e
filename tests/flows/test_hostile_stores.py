"""Stores, configurations and data of somebody who means harm: commands stay inside their store."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers.tiny_task import ROWS, run_config, texts, write_labelled, write_lines, write_toml

from flows.cli import main
from flows.config import load_config
from flows.current import promote
from sparsedistill.errors import ConfigError
from storage import ArtifactStore
from storage.digests import sha256_json

TREASURE = "the treasure of somebody else"
Spoil = Callable[[Path, Path], None]


def contents(directory: Path) -> dict[str, tuple[bytes, int]]:
    """Everything below a directory, with times of change."""
    return {
        str(path.relative_to(directory)): (
            path.read_bytes() if path.is_file() else b"",
            path.lstat().st_mtime_ns,
        )
        for path in [directory, *directory.rglob("*")]
    }


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """What lies beside the store and is none of its business."""
    directory = tmp_path / "outside"
    deep = directory / "corpus" / ("0" * 32)
    deep.mkdir(parents=True)
    for path in (directory / "treasure.txt", deep / "manifest.json", directory / "claim.json"):
        path.write_text(f'{{"text": "{TREASURE}"}}', "utf-8")
    return directory


def _manifest(store: Path) -> Path:
    return sorted(store.glob("corpus/*/manifest.json"))[0]


def _rewrite(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    fields = json.loads(path.read_text("utf-8"))
    change(fields)
    # A checksum against bad disks is none against bad people, who give the right one.
    fields["sha256"] = sha256_json({name: fields[name] for name in fields if name != "sha256"})
    path.write_text(json.dumps(fields), "utf-8")


def absolute_file(store: Path, outside: Path) -> None:
    treasure = str(outside / "treasure.txt")
    _rewrite(_manifest(store), lambda fields: fields["files"][0].update(name=treasure))


def climbing_file(store: Path, outside: Path) -> None:
    name = "../../../outside/treasure.txt"
    _rewrite(_manifest(store), lambda fields: fields["files"][0].update(name=name))


def climbing_directory(store: Path, outside: Path) -> None:
    _rewrite(_manifest(store), lambda fields: fields.update(directory="../../../outside"))


def absolute_directory(store: Path, outside: Path) -> None:
    _rewrite(_manifest(store), lambda fields: fields.update(directory=str(outside)))


def climbing_kind_of_an_input(store: Path, outside: Path) -> None:
    evil = {"kind": "../outside/corpus", "key": "0" * 32, "digest": "0" * 64}
    _rewrite(_manifest(store), lambda fields: fields.update(inputs={"held_out": [evil]}))


def commands_for_the_terminal(store: Path, outside: Path) -> None:
    def change(fields: dict[str, Any]) -> None:
        fields["statistics"]["\x1b]0;owned\x07"] = "\x1b[2J\u202e"
        fields.update(created="\x1b[2J", tool_version="\x1b[2J")

    _rewrite(_manifest(store), change)


def deep_nesting(store: Path, outside: Path) -> None:
    _manifest(store).write_text("[" * 200_000, "utf-8")


def linked_manifest(store: Path, outside: Path) -> None:
    path = _manifest(store)
    path.unlink()
    path.symlink_to(outside / "treasure.txt")


def linked_artifact(store: Path, outside: Path) -> None:
    (store / "corpus" / ("0" * 32)).symlink_to(outside / "corpus" / ("0" * 32))


def linked_kind(store: Path, outside: Path) -> None:
    shutil.rmtree(store / "corpus")
    (store / "corpus").symlink_to(outside / "corpus")


def linked_store_file(store: Path, outside: Path) -> None:
    (store / "store.json").unlink()
    (store / "store.json").symlink_to(outside / "treasure.txt")


def _linked(name: str) -> Spoil:
    def spoil(store: Path, outside: Path) -> None:
        if (store / name).is_dir():
            shutil.rmtree(store / name)
        (store / name).symlink_to(outside)

    spoil.__name__ = f"linked{name}"
    return spoil


def linked_litter(store: Path, outside: Path) -> None:
    """What a killed process seems to have left is a way out."""
    for parent in (".tmp", ".work"):
        (store / parent).mkdir(exist_ok=True)
        name = f"corpus-{'0' * 32}-elsewhere-99999999-00000000"
        (store / parent / name).symlink_to(outside)


def hostile_leases(store: Path, outside: Path) -> None:
    top = store / ".leases"
    lease = top / f"run-{'0' * 32}-elsewhere-1-00000000"
    lease.mkdir(parents=True, exist_ok=True)
    evil = {"format": 1, "names": [["../outside", "0" * 32], ["corpus", "../../outside"], 7]}
    (lease / "names-000001.json").write_text(json.dumps(evil), "utf-8")
    (lease / "claim.json").symlink_to(outside / "claim.json")
    (top / f"run-{'1' * 32}-elsewhere-1-00000000").symlink_to(outside)


def hostile_records(store: Path, outside: Path) -> None:
    top = store / ".records" / "current-tiny"
    top.mkdir(parents=True)
    evil = {"kind": "../outside", "key": "0" * 32, "digest": ""}
    document: dict[str, Any] = {
        "format": 1, "name": "current-tiny", "number": 1, "created": "", "writer": "",
        "content": {"references": {"package": evil}},
    }  # fmt: skip
    document["sha256"] = sha256_json(document)
    (top / "00000001.json").write_text(json.dumps(document), "utf-8")
    (top / "00000002.json").symlink_to(outside / "treasure.txt")
    (store / ".records" / "linked").symlink_to(outside)


SPOILS: tuple[Spoil, ...] = (
    absolute_file, climbing_file, climbing_directory, absolute_directory,
    climbing_kind_of_an_input, commands_for_the_terminal, deep_nesting, linked_manifest,
    linked_artifact, linked_kind, linked_store_file, _linked(".tmp"), _linked(".work"),
    _linked(".leases"), _linked(".records"), linked_litter, hostile_leases, hostile_records,
)  # fmt: skip


@pytest.mark.parametrize("spoil", SPOILS, ids=lambda spoil: spoil.__name__)
def test_no_command_reads_or_writes_outside_a_hostile_store(
    spoil: Spoil,
    own_store: Path,
    own_data: Path,
    outside: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
):
    key = _manifest(own_store).parent.name
    last = f"package/{sorted(own_store.glob('package/*'))[0].name}"
    spoil(own_store, outside)
    before = contents(outside)
    toml = write_toml(tmp_path / "tiny.toml", run_config(own_data, own_store))
    out = tmp_path / "out"
    for command in (
        ["store", "ls"], ["store", "show", f"corpus/{key}"], ["store", "lineage", last],
        ["store", "verify"], ["store", "gc"], ["store", "gc", "--delete", "--older-than", "0"],
        ["plan", str(toml), "--no-measure"],
        ["distill", str(toml), "--no-prefect", "--out", str(out)],
        ["store", "gc", "--delete", "--older-than", "0", "--unfinished", "0"],
    ):  # fmt: skip
        end = ["--store", str(own_store)] if command[0] == "store" else []
        status = main([*command, *end])
        assert status in (0, 1), command
        _says_nothing_bad("".join(capsys.readouterr()) + caplog.text, command)
        assert contents(outside) == before, command


def _says_nothing_bad(said: str, command: list[str]) -> None:
    assert TREASURE not in said, command
    assert "\x1b[2J" not in said, command
    assert "\x1b]0;" not in said, command
    assert "Traceback" not in said, command


def _decided(store: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Have the run's model be the current one, by a decision of somebody who means harm."""
    promote(ArtifactStore(store), "tiny")
    (path,) = store.glob(".records/current-tiny/*.json")
    _rewrite(path, change)


def decision_about_what_is_outside(store: Path, outside: Path) -> None:
    evil = {"kind": "../outside/corpus", "key": "0" * 32, "digest": "0" * 64}
    _decided(store, lambda fields: fields["content"]["references"].update(package=evil))


def decision_about_a_package_of_files_outside(store: Path, outside: Path) -> None:
    """What is promoted is well-formed; its manifest names the files of somebody else."""
    _decided(store, lambda fields: None)
    (path,) = store.glob("package/*/manifest.json")
    _rewrite(path, lambda fields: fields["files"][0].update(name=str(outside / "treasure.txt")))


def decision_about_linked_files(store: Path, outside: Path) -> None:
    _decided(store, lambda fields: None)
    (package,) = store.glob("package/*/config.json")
    package.unlink()
    package.symlink_to(outside / "treasure.txt")


def decision_with_commands_for_the_terminal(store: Path, outside: Path) -> None:
    def change(fields: dict[str, Any]) -> None:
        evil = "\x1b[2J\x1b]0;owned\x07"
        fields["created"] = evil
        fields["content"].update(why=evil, labels=[evil], fingerprint={evil: evil})

    _decided(store, change)


def decision_of_an_unknown_verdict(store: Path, outside: Path) -> None:
    evil = "\x1b[2J\x1b]0;owned\x07"
    _decided(store, lambda fields: fields["content"].update(verdict=evil))


@pytest.mark.parametrize(
    "spoil",
    [
        hostile_records, _linked(".records"), decision_about_what_is_outside,
        decision_about_a_package_of_files_outside, decision_about_linked_files,
        decision_with_commands_for_the_terminal, decision_of_an_unknown_verdict,
    ],
    ids=lambda spoil: spoil.__name__,
)  # fmt: skip
def test_no_command_over_decisions_reads_or_writes_outside_a_hostile_store(
    spoil: Spoil,
    own_store: Path,
    own_data: Path,
    outside: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
):
    spoil(own_store, outside)
    before = contents(outside)
    toml = str(write_toml(tmp_path / "tiny.toml", run_config(own_data, own_store)))
    out = ["--out", str(tmp_path / "out")]
    for command in (
        ["current", toml], ["rollback", toml, *out], ["rollback", toml, "--to", "1", *out],
        ["redistill", toml, "--no-prefect", *out], ["promote", toml, *out], ["current", toml],
    ):  # fmt: skip
        assert main(command) in (0, 1), command
        _says_nothing_bad("".join(capsys.readouterr()), command)
        assert contents(outside) == before, command
    delivered = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert [path for path in delivered if TREASURE.encode() in path.read_bytes()] == []


def test_labels_and_texts_that_look_like_paths_stay_labels_and_texts(
    tiny_encoder: Path, tmp_path: Path, outside: Path, monkeypatch: pytest.MonkeyPatch, small
):
    monkeypatch.setenv("HOME", str(outside))
    monkeypatch.setenv("XDG_CACHE_HOME", str(outside))
    names = {"garden": "../../x", "kitchen": "~", "railway": "/etc/\x1b[2J</script><b>"}
    data = tmp_path / "data"
    data.mkdir()
    rows = [(f"{text} ../../{names[label]}", names[label]) for text, label in texts(400, seed=0)]
    for split, count in ROWS.items():
        write_labelled(data / f"{split}.csv", rows[:count])
        rows = rows[count:]
    write_lines(data / "corpus.txt", [text.replace("\x1b", "") for text, _ in rows])
    shutil.copytree(tiny_encoder, data / "encoder")
    before, there = contents(outside), set(tmp_path.iterdir())
    store, out = tmp_path / "store", tmp_path / "out"
    toml = write_toml(tmp_path / "tiny.toml", run_config(data, store, **small))
    assert main(["distill", str(toml), "--no-prefect", "--out", str(out)]) == 0
    assert contents(outside) == before
    assert set(tmp_path.iterdir()) - there == {store, out, toml}
    assert all(found.ok for found in ArtifactStore(store).verify())
    page = (out / "report.html").read_text("utf-8")
    assert "</script><b>" not in page
    assert "\x1b" not in page


@pytest.mark.parametrize(
    "name",
    ["../../x", "/etc/x", "~", "~root", ".", "..", "a/b", "a\\b", "a\x00b", "a\nb", "a b", "A",
     "-a", "", "ä", pytest.param("x" * 300, id="long")],
)  # fmt: skip
def test_a_run_cannot_be_called_what_is_no_plain_name(name: str, tmp_path: Path):
    toml = write_toml(tmp_path / "c.toml", {**run_config(tmp_path, tmp_path / "s"), "name": name})
    with pytest.raises(ConfigError, match="name"):
        load_config(toml)


def test_a_hostile_summary_makes_a_page_and_nothing_else(tmp_path: Path, tiny_run, capsys):
    summary = tiny_run.summary()
    evil = "</script><script>alert(1)</script>\x1b[2J"
    summary["name"] = evil
    summary["labels"] = [evil for _ in summary.get("labels", ())]
    for row in summary["results"]:
        row["model"] = evil
    (tmp_path / "summary.json").write_text(json.dumps(summary), "utf-8")
    page = tmp_path / "page.html"
    for options in (["--out", str(page)], ["--markdown"]):
        main(["report", str(tmp_path / "summary.json"), *options])
        said = "".join(capsys.readouterr())
        assert "\x1b[2J" not in said
    assert not page.exists() or "<script>alert(1)" not in page.read_text("utf-8")
