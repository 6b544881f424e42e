"""No name and no link leads out of the store."""

from __future__ import annotations

import shutil

import pytest

from storage import ArtifactStore, Recipe, Rules, StorageError

RECIPE = Recipe("corpus", 1, {"rows": 100})
ESCAPES = ["../x", "/etc/passwd", "a/../../x", "..", ".", "", "a//b", "a\\..\\b", "C:x", "a\0b"]


@pytest.mark.parametrize("name", [*ESCAPES, "manifest.json", "a*", "x" * 300, "\udcff", "./a"])
def test_a_file_name_that_leaves_the_artifact_is_refused(store, name):
    with pytest.raises(StorageError, match="file name"), store.create(RECIPE) as writer:
        writer.path(name)
    assert store.find(RECIPE) is None


@pytest.mark.parametrize("kind", ESCAPES)
def test_a_kind_that_leaves_the_root_is_refused_everywhere(store, kind):
    for use in (
        lambda: store.get(kind, "0"),
        lambda: store.artifacts(kind),
        lambda: store.remove(kind, "0" * 32),
        lambda: list(store.verify(kind)),
    ):
        with pytest.raises(StorageError, match="kind"):
            use()


@pytest.mark.parametrize("key", [*ESCAPES, "0" * 31, "G" * 32])
def test_a_key_that_leaves_the_kind_is_refused(store, key):
    with pytest.raises(StorageError, match="key"):
        store.remove("corpus", key)


def test_a_link_out_of_the_root_is_never_followed(local_store, root, tmp_path, make, caplog):
    secret = tmp_path / "secret.txt"
    secret.write_text("some text")
    artifact = make(local_store, RECIPE)
    path = artifact.path("data.txt")
    path.unlink()
    path.symlink_to(secret)
    assert local_store.find(RECIPE) is None
    with pytest.raises(StorageError, match="leaves the store"):
        artifact.path("data.txt")
    (found,) = local_store.verify()
    assert "leaves the store" in found.problems[0]


def test_a_linked_artifact_or_kind_outside_is_never_followed(local_store, root, tmp_path, make):
    elsewhere = ArtifactStore(tmp_path / "elsewhere")
    make(elsewhere, RECIPE)
    (root / "corpus").mkdir()
    (root / "corpus" / RECIPE.key).symlink_to(tmp_path / "elsewhere" / "corpus" / RECIPE.key)
    assert local_store.find(RECIPE) is None
    (root / "corpus" / RECIPE.key).unlink()
    (root / "corpus").rmdir()
    (root / "corpus").symlink_to(tmp_path / "elsewhere" / "corpus")
    assert local_store.find(RECIPE) is None
    assert local_store.artifacts() == []
    with pytest.raises(StorageError, match="leaves the store"):
        local_store.remove("corpus", RECIPE.key)
    with pytest.raises(StorageError, match="leaves the store"):
        make(local_store, Recipe("corpus", 1, {"rows": 1}))
    assert elsewhere.find(RECIPE)


def test_a_store_reached_through_a_link_works(tmp_path, make):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    store = ArtifactStore(tmp_path / "link")
    assert make(store, RECIPE).path("data.txt").exists()
    assert ArtifactStore(tmp_path / "real").find(RECIPE)


def test_a_link_cannot_become_part_of_an_artifact(store, tmp_path):
    with pytest.raises(StorageError, match="is a link"), store.create(RECIPE) as writer:
        writer.path("a").symlink_to(tmp_path)


def claim(store):
    with store.lease("weekly") as lease:
        lease.use([("corpus", RECIPE.key)])


def collect(store):
    rules = Rules(roots=lambda manifests: {}, owns=lambda manifest: ())
    store.collect(rules, delete=True, older_than=0)


@pytest.mark.parametrize(
    ("name", "use"),
    [
        (".tmp", claim),
        (".tmp", collect),
        (".work", lambda store: store.workspace(RECIPE)),
        (".work", lambda store: store.turn(RECIPE).__enter__()),
        (".work", collect),
        (".leases", claim),
        (".leases", collect),
        (".records", lambda store: store.records("log")),
        (".records", lambda store: store.add_record("log", {}, after=0)),
    ],
)
def test_a_directory_of_the_store_that_is_a_link_is_refused(local_store, root, tmp_path, name, use):
    outside = tmp_path / "outside" / "student-00000000000000000000000000000000"
    outside.mkdir(parents=True)
    (outside / "mine").write_text("x")
    shutil.rmtree(root / name, ignore_errors=True)
    (root / name).symlink_to(tmp_path / "outside")
    with pytest.raises(StorageError, match="leaves the store"):
        use(local_store)
    assert sorted((tmp_path / "outside").rglob("*")) == [outside, outside / "mine"]


def test_a_workspace_that_is_a_link_is_refused(local_store, root, tmp_path):
    (tmp_path / "outside").mkdir()
    (root / ".work").mkdir()
    (root / ".work" / f"corpus-{RECIPE.key}").symlink_to(tmp_path / "outside")
    with pytest.raises(StorageError, match="leaves the store"):
        local_store.workspace(RECIPE)
