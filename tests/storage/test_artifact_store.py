"""What a user of the store may rely on, on a local disk and on an object store alike."""

from __future__ import annotations

import logging
import pickle
from pathlib import Path

import pytest

from storage import ArtifactStore, Recipe, StorageError


def test_an_artifact_is_found_again_with_all_that_was_written(store, recipe):
    assert store.find(recipe) is None
    with store.create(recipe, tool_version="1.2.3") as writer:
        writer.path("a.txt").write_text("hello")
        writer.path("deep/er/b.json").write_text('{"x": [1]}')
        writer.set_rows("a.txt", 7)
        writer.statistics["loss"] = 0.25
    found = store.find(recipe)
    assert found.manifest == writer.artifact.manifest
    assert (found.kind, found.key, found.names) == (
        "corpus",
        recipe.key,
        ("a.txt", "deep/er/b.json"),
    )
    assert found.path("a.txt").read_text() == "hello"
    assert found.read_json("deep/er/b.json") == {"x": [1]}
    assert found.statistics == {"loss": 0.25}
    assert found.entry("a.txt").rows == 7
    assert found.manifest.size == 15
    assert found.manifest.tool_version == "1.2.3"
    assert found.manifest.created.endswith("+00:00")
    assert (found.directory() / "deep/er/b.json").exists()
    assert (found.directory() / "a.txt").exists()


def test_find_all_keeps_the_order_and_lists_each_kind_once(store, make, monkeypatch):
    recipes = [Recipe(kind, 1, {"i": i}) for i in range(5) for kind in ("corpus", "logits")]
    for recipe in recipes[::2]:
        make(store, recipe, data=str(recipe.config["i"]))
    listings = []
    backend = type(store._backend)
    listing = backend.listing

    def counted(self, kind, keys=None):
        listings.append(kind)
        return listing(self, kind, keys)

    monkeypatch.setattr(backend, "listing", counted)
    found = store.find_all(recipes)
    assert [a.key if a else None for a in found] == [
        r.key if i % 2 == 0 else None for i, r in enumerate(recipes)
    ]
    assert sorted(listings) == ["corpus", "logits"]
    assert store.find_all([]) == []
    assert [a.key for a in store.find_all([recipes[0]] * 2)] == [recipes[0].key] * 2


def test_as_input_leads_downstream_keys_by_content(store, make):
    first = make(store, Recipe("corpus", 1, {"i": 1}), data="same")
    again = make(store, Recipe("corpus", 1, {"i": 2}), data="same")
    other = make(store, Recipe("corpus", 1, {"i": 3}), data="other")
    keys = [Recipe("ngrams", 1, {}, {"c": (a.as_input(),)}).key for a in (first, again, other)]
    assert keys[0] == keys[1] != keys[2]


def test_an_exception_in_the_block_leaves_nothing(store, recipe, root):
    writers = []

    def fail():
        with store.create(recipe) as writer:
            writers.append(writer)
            writer.path("a.txt").write_text("half")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert store.find(recipe) is None
    assert store.artifacts() == []
    assert not list(store._backend.temporary.iterdir())
    with pytest.raises(StorageError, match="only after"):
        _ = writers[0].artifact


def test_of_two_makers_the_first_wins_and_the_other_uses_it(store, recipe):
    with store.create(recipe) as slow:
        slow.path("data.txt").write_text("slow and longer")
        with store.create(recipe) as fast:
            fast.path("data.txt").write_text("fast")
    assert slow.artifact.digest == fast.artifact.digest
    assert slow.artifact.path("data.txt").read_text() == "fast"
    assert [v.ok for v in store.verify()] == [True]
    assert not list(store._backend.temporary.iterdir())


def test_get_wants_a_unique_prefix_and_lists_candidates(store, make):
    made = [make(store, Recipe("corpus", 1, {"i": i})) for i in range(20)]
    assert store.get("corpus", made[3].key).key == made[3].key
    letters = [a.key[0] for a in made]
    single = next((a for a in made if letters.count(a.key[0]) == 1), None)
    if single:
        assert store.get("corpus", single.key[0]).key == single.key
    double = next(a for a in made if letters.count(a.key[0]) > 1)
    with pytest.raises(StorageError, match=f"corpus artifacts start with .*{double.key}"):
        store.get("corpus", double.key[0])
    with pytest.raises(StorageError, match=r"no corpus artifact starts with .*and 10 more"):
        store.get("corpus", "0" * 31)
    with pytest.raises(StorageError, match="no logits artifact; kinds in this store: corpus"):
        store.get("logits", "0")
    for prefix in ("", "../x", "xyz", "0" * 33):
        with pytest.raises(StorageError, match="starts no artifact key"):
            store.get("corpus", prefix)


def test_artifacts_lists_kinds_in_order(store, make):
    for kind in ("logits", "corpus", "ngrams"):
        make(store, Recipe(kind, 1, {}))
    assert [m.kind for m in store.artifacts()] == ["corpus", "logits", "ngrams"]
    assert [m.kind for m in store.artifacts("ngrams")] == ["ngrams"]
    assert store.artifacts("student") == []


def test_lineage_leads_back_to_the_sources_and_names_what_is_gone(store, make):
    shards = [make(store, Recipe("corpus", 1, {"i": i}), data=str(i)) for i in range(3)]
    inputs = tuple(a.as_input() for a in shards)
    counts = [make(store, Recipe("ngrams", 1, {}, {"corpus": (i,)}), data=i.key) for i in inputs]
    vocabulary = make(
        store,
        Recipe("vocabulary", 1, {}, {"ngrams": tuple(a.as_input() for a in counts), "c": inputs}),
    )
    store.remove("corpus", shards[1].key)
    node = store.lineage(vocabulary)
    assert node.manifest == vocabulary.manifest
    assert [child.key for child in node.children["ngrams"]] == [a.key for a in counts]
    leaves = [child.children["corpus"][0] for child in node.children["ngrams"]]
    assert [leaf.manifest is None for leaf in leaves] == [False, True, False]
    assert leaves[0] is node.children["c"][0]


def test_remove_removes(store, make, recipe):
    make(store, recipe)
    store.remove("corpus", recipe.key)
    assert store.find(recipe) is None
    assert store.artifacts() == []
    store.remove("corpus", recipe.key)
    make(store, recipe)
    assert store.find(recipe)


def test_a_workspace_survives_until_the_recipe_is_published(store, recipe):
    (store.workspace(recipe) / "step-1").write_text("checkpoint")
    with pytest.raises(RuntimeError), store.create(recipe):
        raise RuntimeError("the machine loses power")
    workspace = store.workspace(recipe)
    assert (workspace / "step-1").read_text() == "checkpoint"
    with store.create(recipe) as writer:
        writer.path("a").write_text("done")
        assert workspace.exists()
    assert not workspace.exists()


def test_files_not_asked_for_by_path_belong_to_the_artifact_too(store, recipe):
    # A model's save_pretrained() chooses its own file names.
    with store.create(recipe) as writer:
        (writer.directory / "config.json").write_text("{}")
    assert writer.artifact.names == ("config.json",)


def test_an_artifact_of_known_content_may_have_no_files(store):
    with store.create(Recipe("corpus", 1, {}, content="c" * 64)) as writer:
        pass
    assert store.find(Recipe("corpus", 1, {}, content="c" * 64)).digest == "c" * 64
    with pytest.raises(StorageError, match="no files"):
        writer.artifact.directory()


def test_an_artifact_without_files_or_content_is_a_mistake(store, recipe):
    with pytest.raises(StorageError, match="nothing was written"), store.create(recipe):
        pass


def test_rows_of_a_file_that_was_not_written_are_a_mistake(store, recipe):
    def mistake():
        with store.create(recipe) as writer:
            writer.path("a.txt").write_text("x")
            writer.set_rows("b.txt", 1)

    with pytest.raises(StorageError, match=r"set_rows.*b\.txt"):
        mistake()


def test_an_unknown_file_is_named_with_those_there_are(store, make, recipe):
    with pytest.raises(StorageError, match=r"no file 'b\.txt'; it has: data\.txt"):
        make(store, recipe).path("b.txt")


def test_a_store_and_its_artifacts_can_be_sent_to_another_process(store, make, recipe):
    artifact = pickle.loads(pickle.dumps(make(store, recipe)))
    assert artifact.path("data.txt").read_text() == "some text"
    again = pickle.loads(pickle.dumps(store))
    assert again.find(recipe).key == recipe.key


def test_a_remote_file_is_downloaded_once(make, recipe, monkeypatch):
    store = ArtifactStore("memory://once/runs")
    artifact = make(store, recipe)
    fetched = []
    get_file = store._backend._fs.get_file
    monkeypatch.setattr(
        store._backend._fs, "get_file", lambda *a, **k: fetched.append(a) or get_file(*a, **k)
    )
    assert artifact.path("data.txt") == artifact.path("data.txt")
    assert len(fetched) == 1


def test_a_recomputed_remote_artifact_never_meets_old_local_copies(make, recipe):
    store = ArtifactStore("memory://stale/runs")
    old = make(store, recipe, data="old!").path("data.txt")
    store.remove("corpus", recipe.key)
    new = make(store, recipe, data="new!").path("data.txt")
    assert (old.read_text(), new.read_text()) == ("old!", "new!")


def test_relative_paths_and_file_urls_are_local(tmp_path, monkeypatch, make, recipe):
    monkeypatch.chdir(tmp_path)
    artifact = make(ArtifactStore("runs"), recipe)
    monkeypatch.chdir("/")
    assert artifact.path("data.txt").read_text() == "some text"
    assert ArtifactStore(f"file://{tmp_path}/runs").find(recipe)
    assert ArtifactStore(tmp_path / "runs").find(recipe)


def test_strange_characters_in_the_root_are_no_globs(tmp_path, make, recipe):
    for url in (str(tmp_path / "a [1]*é"), "memory://a [1]*é/runs"):
        store = ArtifactStore(url)
        make(store, recipe)
        assert store.find(recipe).path("data.txt").read_text() == "some text"
        assert [v.ok for v in store.verify()] == [True]


def test_the_default_cache_is_the_users(monkeypatch):
    from storage.scratch import cache_directory

    monkeypatch.delenv("SPARSEDISTILL_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert cache_directory() == Path("/somewhere/sparsedistill")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_directory() == Path("~/.cache/sparsedistill").expanduser()


def test_nothing_is_logged_as_a_warning_when_all_is_well(store, make, recipe, caplog):
    with caplog.at_level(logging.WARNING):
        make(store, recipe)
        store.find(recipe)
    assert not caplog.records
