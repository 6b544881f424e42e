"""What garbage collection keeps: the last runs of each name, and the models that decisions name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flows.current import PREFIX, before_current, current, history
from flows.finished import finished_runs
from storage import Rules
from tasks import corpus, report_file

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from storage import ArtifactStore, Manifest

    Name = tuple[str, str]

KEPT_RUNS = 3


def rules(store: ArtifactStore, *, keep_runs: int = KEPT_RUNS) -> Rules:
    """Return what is kept in a store of pipelines.

    Args:
        store: Whose decisions count.
        keep_runs: How many finished runs of each name; those that ended last.
    """
    return Rules(
        roots=_roots(store, keep_runs),
        owns=_shards_of,
        # A student that started from an earlier one keeps it, but not all that was ever before it.
        unfollowed=frozenset({"earlier"}),
        root_kinds=frozenset({report_file.KIND}),
        parts={corpus.KIND: corpus.SHARD_KIND},
    )


def _roots(
    store: ArtifactStore, keep_runs: int
) -> Callable[[Sequence[Manifest]], Mapping[Name, str]]:
    def roots(manifests: Sequence[Manifest]) -> dict[Name, str]:
        kept = dict(_of_decisions(store))
        names = {str(one.config.get("name")) for one in manifests if one.kind == report_file.KIND}
        for name in sorted(names):
            for manifest, when in finished_runs(store, name, manifests)[::-1][:keep_runs]:
                day = when[:16].replace("T", " ")
                kept.setdefault((manifest.kind, manifest.key), f"the run {name} of {day}")
        return kept

    return roots


def _of_decisions(store: ArtifactStore) -> Iterator[tuple[Name, str]]:
    """Yield what the current models are, and those that a roll-back would return to."""
    for record in store.record_names():
        if not record.startswith(PREFIX):
            continue
        name = record.removeprefix(PREFIX)
        decisions = history(store, name)
        for decision, what in (
            (before_current(decisions), "the model before the current one"),
            (current(decisions), "the current model"),
        ):
            for one in decision.model.references.values() if decision else ():
                yield (one.kind, one.key), f"{what} of {name}"


def _shards_of(manifest: Manifest) -> list[Name]:
    if manifest.kind != corpus.KIND:
        return []
    listed: Any = manifest.statistics.get("shards", ())
    return [(corpus.SHARD_KIND, corpus.shard_recipe(shard["content"]).key) for shard in listed]
