"""One wrong answer about a manifest, from a server or from memory, decides nothing."""

from __future__ import annotations

import pytest
from helpers.collecting import collect, names, recipe

from storage import ArtifactStore, Recipe
from storage.names import MANIFEST, MARK

RECIPE = Recipe("corpus", 1, {"rows": 100})


@pytest.fixture(
    params=[
        lambda text: text[:40] + bytes([text[40] ^ 1]) + text[41:],
        lambda text: text[: len(text) // 2],
        lambda text: b"",
        lambda text: None,
        lambda text: text.replace(b'"format": 1', b'"format": 9'),
    ],
    ids=["flipped", "short", "empty", "gone", "newer"],
)
def wrong_once(request, store, monkeypatch):
    """Have the next reading of each manifest go wrong; the paths that were read so are told."""

    def begin() -> list[str]:
        read, told = store._backend.read, []

        def answer(paths):
            texts = read(paths)
            for number, path in enumerate(paths):
                if path.endswith(MANIFEST) and path not in told:
                    told.append(path)
                    texts[number] = request.param(texts[number])
            return texts

        monkeypatch.setattr(store._backend, "read", answer)
        return told

    return begin


def test_what_is_there_is_found(store, make, wrong_once, caplog):
    artifact = make(store, RECIPE)
    told = wrong_once()
    assert store.find(RECIPE).manifest == artifact.manifest
    assert len(told) == 1
    assert caplog.records == []


def test_what_is_asked_for_by_a_part_of_its_key_is_found(store, make, wrong_once):
    artifact = make(store, RECIPE)
    told = wrong_once()
    assert store.get("corpus", RECIPE.key[:8]).manifest == artifact.manifest
    assert len(told) == 1


def test_what_is_whole_is_not_marked(store, make, wrong_once):
    make(store, RECIPE)
    told = wrong_once()
    assert [found.ok for found in store.verify()] == [True]
    assert len(told) == 1
    assert MARK not in store._backend.files(f"corpus/{RECIPE.key}")


def test_what_is_there_is_not_replaced(store, make, wrong_once):
    artifact = make(store, RECIPE, data="first")
    told = wrong_once()
    assert make(store, RECIPE, data="other").manifest == artifact.manifest
    assert len(told) == 1
    assert [found.ok for found in ArtifactStore(store.url).verify()] == [True]


def test_a_collection_keeps_what_is_needed(store, make, wrong_once):
    origin = make(store, recipe("raw"))
    data = make(store, recipe("data", raw=origin))
    model = make(store, recipe("model", data=data))
    told = wrong_once()
    found = collect(store)
    assert len(told) == 3
    assert found.freed == ()
    assert {(one.kind, one.key) for one in found.kept} == names(origin, data, model)
