"""Several configurations side by side: each is run as far as it is not yet made, then compared.

What differs between two configurations costs what depends on it; the rest they share in the store.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dashboards.comparison import render_comparison
from sparsedistill.errors import ConfigError
from storage.urls import shown
from tasks.stage import tool_version

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from flows.config import DistillConfig
    from flows.delivery import RunResult

COMPARISON_FILE, PAGE_FILE = "comparison.json", "comparison.html"
# Of [run] only what can change a figure.
_MEASURED_WITH = ("run.threads", "run.student_device", "run.teacher_devices")


@dataclass(frozen=True, slots=True)
class Comparison:
    """Finished runs side by side.

    Attributes:
        results: Of the runs, by name; two configurations of one name are told apart by a number.
        document: All that the page shows, as plain JSON: what ``comparison.json`` holds.
    """

    results: Mapping[str, RunResult]
    document: Mapping[str, Any]

    def write(self, directory: str | Path) -> tuple[Path, Path]:
        """Write numbers and page; returns where they are."""
        root = Path(directory)
        root.mkdir(parents=True, exist_ok=True)
        numbers, page = root / COMPARISON_FILE, root / PAGE_FILE
        numbers.write_text(json.dumps(self.document, ensure_ascii=False, indent=1), "utf-8")
        page.write_text(render_comparison(self.document), "utf-8")
        return numbers, page


def compare(
    configs: Sequence[DistillConfig], *, run: Callable[[DistillConfig, str], RunResult]
) -> Comparison:
    """Run all configurations, one after the other, and put their results side by side.

    Args:
        configs: At least two.
        run: Makes what is missing of one, which is told apart by the name given with it.

    Raises:
        ConfigError: There are fewer than two.
    """
    if len(configs) < 2:
        raise ConfigError("give at least two configurations to compare")
    names = _names(configs)
    results = {name: run(config, name) for name, config in zip(names, configs, strict=True)}
    document = {
        "format": 1,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "tool_version": tool_version(),
        "runs": [
            {
                "name": name,
                "texts": result.artifacts["dataset"][-1].digest,
                "summary": result.summary(),
            }
            for name, result in results.items()
        ],
        "settings": differences(configs),
    }
    return Comparison(results, document)


def differences(configs: Sequence[DistillConfig]) -> list[dict[str, Any]]:
    """Return the settings in which configurations differ, by key, with the value of each."""
    flat = [_flat(config.model_dump(mode="json")) for config in configs]
    keys = dict.fromkeys(key for one in flat for key in one)
    found = []
    for key in keys:
        if key == "name" or (key.startswith("run.") and key not in _MEASURED_WITH):
            continue
        values = [one.get(key) for one in flat]
        if any(value != values[0] for value in values):
            found.append({"key": key, "values": [_without_secrets(value) for value in values]})
    return found


def _without_secrets(value: Any) -> Any:  # noqa: ANN401 (whatever a setting is)
    """Return a setting without the queries and passwords of URLs: it goes on a page."""
    if isinstance(value, list):
        return [_without_secrets(one) for one in value]
    return shown(value) if isinstance(value, str) else value


def _names(configs: Sequence[DistillConfig]) -> list[str]:
    times, seen, names = Counter(config.name for config in configs), Counter[str](), []
    for config in configs:
        seen[config.name] += 1
        alone = times[config.name] == 1
        names.append(config.name if alone else f"{config.name} {seen[config.name]}")
    return names


def _flat(value: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return tables in tables as one, keys joined by dots."""
    found: dict[str, Any] = {}
    for key, inner in value.items():
        if isinstance(inner, dict):
            found |= _flat(inner, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = inner
    return found
