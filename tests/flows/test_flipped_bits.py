"""One bit is flipped in what a run has stored: it is found, never used, and mended by the next run.

Every file of every kind of artifact has its turn, and so have the store's own documents.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from helpers.tiny_task import run_config

from flows.config import parse_config
from flows.delivery import RunResult, deliver
from flows.errors import RunFailedError
from flows.inline import run_inline
from storage import ArtifactStore, DamagedArtifactError, StorageError
from storage.digests import sha256_file

MEASURED = {"evaluation", "report"}
FILES = {
    "baseline", "corpus", "corpus_shard", "dataset", "evaluation", "features", "finetune",
    "logits", "ngrams", "package", "report", "student", "teacher", "vocabulary",
}  # fmt: skip


def flip(path: Path, *, seed: object) -> None:
    """Flip one bit of a file, drawn from a seed."""
    data = bytearray(path.read_bytes())
    bit = random.Random(str(seed)).randrange(8 * len(data))
    data[bit // 8] ^= 1 << bit % 8
    path.chmod(0o644)
    path.write_bytes(bytes(data))


def one_of_each_kind(store: Path) -> Iterator[tuple[str, str, list[str]]]:
    """An artifact of every kind, and its files that are not empty."""
    opened = ArtifactStore(store)
    for kind in sorted({manifest.kind for manifest in opened.artifacts()}):
        manifest = opened.artifacts(kind)[0]
        yield kind, manifest.key, [file.name for file in manifest.files if file.bytes]


def files_of(store: Path) -> dict[str, str]:
    """Checksums of all files of artifacts that are functions of their recipes."""
    return {
        str(path.relative_to(store)): sha256_file(path)
        for path in store.glob("[a-z]*/*/**/*")
        if path.is_file()
        and path.name != "manifest.json"
        and path.relative_to(store).parts[0] not in MEASURED
    }


def test_every_file_with_a_flipped_bit_is_named_by_verify_and_refused_to_readers(own_store: Path):
    found = 0
    for kind, key, names in one_of_each_kind(own_store):
        for name in names:
            path = own_store / kind / key / name
            good = path.read_bytes()
            flip(path, seed=path.name)
            with pytest.raises(DamagedArtifactError, match="checksum") as caught:
                ArtifactStore(own_store).get(kind, key).path(name)
            assert (caught.value.artifact, caught.value.file) == (f"{kind}/{key}", name)
            (verified,) = (v for v in ArtifactStore(own_store).verify(kind) if v.key == key)
            assert [problem.partition(":")[0] for problem in verified.problems] == [name]
            path.write_bytes(good)
            assert all(one.ok for one in ArtifactStore(own_store).verify(kind))
            assert ArtifactStore(own_store).get(kind, key).path(name).read_bytes() == good
            found += 1
    assert {kind for kind, _, names in one_of_each_kind(own_store) if names} == FILES
    assert found >= 27


def test_any_flipped_bit_of_a_manifest_is_found(own_store: Path):
    """Not only in the names of files: later stages go by its statistics, too."""
    opened = ArtifactStore(own_store)
    (manifest,) = opened.artifacts("corpus")
    path = own_store / "corpus" / manifest.key / "manifest.json"
    good = path.read_bytes()
    unnoticed = []
    for place in random.Random(1).sample(range(8 * len(good)), 400):
        data = bytearray(good)
        data[place // 8] ^= 1 << place % 8
        path.write_bytes(bytes(data))
        if opened.artifacts("corpus"):
            around = slice(max(place // 8 - 20, 0), place // 8 + 20)
            unnoticed.append(bytes(data[around]))
    assert unnoticed == []


def test_a_flipped_bit_in_the_name_of_the_store_is_an_error_or_no_matter(own_store: Path):
    path = own_store / "store.json"
    good = path.read_bytes()
    for place in range(8 * len(good)):
        data = bytearray(good)
        data[place // 8] ^= 1 << place % 8
        path.write_bytes(bytes(data))
        with suppress(StorageError):
            assert len(ArtifactStore(own_store).artifacts("corpus")) == 1


def test_a_run_mends_a_flipped_bit_in_every_kind_at_once(own_data: Path, own_store: Path):
    """What is found damaged ends a run, or is made again at once; a few runs later all is well."""
    before = files_of(own_store)
    for kind, key, names in one_of_each_kind(own_store):
        for name in names:
            flip(own_store / kind / key / name, seed=f"{kind} {name}")
    damaged = [one for one in ArtifactStore(own_store).verify() if not one.ok]
    assert {one.kind for one in damaged} == FILES
    config = parse_config(run_config(own_data, own_store))
    result = run_inline(config)
    assert files_of(own_store) == before
    (left,) = [one for one in ArtifactStore(own_store).verify() if not one.ok]
    # Evaluation was measured anew, so there is a new report; nobody asks for the old one.
    assert (left.kind, left.key) not in {(o.kind, o.key) for o in result.outcomes["report"]}
    made = {kind for kind, some in result.outcomes.items() if any(not o.cached for o in some)}
    assert made >= FILES - {"corpus_shard"}
    assert run_inline(config).computed() == 0


@pytest.mark.parametrize("kind", ["corpus_shard", "teacher", "vocabulary"])
def test_what_nobody_verified_is_refused_by_the_stage_that_reads_it_and_mended_by_the_next_run(
    own_data: Path, own_store: Path, kind: str
):
    reads = {"corpus_shard": "ngrams", "teacher": "logits", "vocabulary": "features"}[kind]
    _mended(own_data, own_store, kind, reads)


@pytest.mark.parametrize("kind", ["package", "report"])
def test_what_nobody_verified_is_not_delivered_and_mended_by_the_next_run(
    own_data: Path, own_store: Path, tmp_path: Path, kind: str
):
    before = files_of(own_store)
    config = parse_config(run_config(own_data, own_store))
    found = run_inline(config)
    (artifact,) = found.artifacts[kind]
    for name in artifact.names:
        flip(own_store / kind / artifact.key / name, seed=name)
    with pytest.raises(DamagedArtifactError, match=artifact.key):
        deliver(found, tmp_path / "out")
    assert [path for path in (tmp_path / "out").rglob("*") if path.is_file()] == []
    result = run_inline(config)
    again = {one.kind for some in result.outcomes.values() for one in some if not one.cached}
    assert again == {kind}
    assert files_of(own_store) == before
    deliver(result, tmp_path / "out")
    place = tmp_path / "out" / ("model" if kind == "package" else "")
    (made,) = result.artifacts[kind]
    assert all((place / n).read_bytes() == made.path(n).read_bytes() for n in made.names)


def _mended(data: Path, store: Path, kind: str, reads: str) -> None:
    before = files_of(store)
    opened = ArtifactStore(store)
    reader, used = next(
        (reader, one)
        for reader in opened.artifacts(reads)
        for some in reader.inputs.values()
        for one in some
        if one.kind == kind
    )
    manifest = opened.get(used.kind, used.key).manifest
    largest = max(manifest.files, key=lambda file: file.bytes)
    flip(store / kind / manifest.key / largest.name, seed=kind)
    opened.remove(reads, reader.key)
    config = parse_config(run_config(data, store))
    with pytest.raises((DamagedArtifactError, RunFailedError), match=manifest.key):
        run_inline(config)
    assert opened.find(reader.recipe) is None
    result = run_inline(config)
    assert files_of(store) == before
    again = {one.kind for some in result.outcomes.values() for one in some if not one.cached}
    # A new evaluation holds new times, so its report is a new one too.
    after = {"report"} if reads == "evaluation" else set()
    assert again == {kind.removesuffix("_shard"), reads} | after


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_every_kind_is_mended_after_its_reader_refused_it(
    tiny_data: Path, tiny_store: Path, tiny_run: RunResult, tmp_path: Path
):
    """A reader of each: the first later stage that has it among its inputs and opens its files."""
    import shutil

    readers = {
        "dataset": "baseline", "baseline": "evaluation", "corpus_shard": "ngrams",
        "ngrams": "vocabulary", "vocabulary": "features", "features": "student",
        "teacher": "logits", "logits": "student", "student": "finetune", "finetune": "package",
        "package": "evaluation", "evaluation": "report",
    }  # fmt: skip
    # No stage opens the list of the corpus's bad rows, nor the report.
    assert set(readers) == FILES - {"corpus", "report"}
    for number, (kind, reads) in enumerate(readers.items()):
        store = tmp_path / str(number)
        shutil.copytree(tiny_store, store)
        _mended(tiny_data, store, kind, reads)
