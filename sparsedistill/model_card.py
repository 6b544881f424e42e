"""The model card: what a model is, how to use it, how good it is and where it ends, as Markdown.

Everything that comes from a model or a run is escaped, so that no label and no provenance can
break the header, add markup, or run anything where the card is shown. The same model and the same
numbers give the same text.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeGuard

if TYPE_CHECKING:
    from sparsedistill.model_format import ModelConfig

CARD_FILE = "README.md"

_REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+", re.ASCII)
_LANGUAGE = re.compile(r"[a-z]{2,3}(-[A-Za-z0-9]{2,8})?")
# Also what would begin a list or a rule, and what would make a link of an address.
_MARKUP = re.compile(r"[\\`*_\[\]#!|~$@]|^[-+=]|:(?=//)")
_LABELS_SHOWN = 200
_ENTRIES_SHOWN = 60
_LONGEST = 200
_DASH = "–"


def model_card(
    config: ModelConfig, *, summary: Mapping[str, Any] | None = None, name: str | None = None
) -> str:
    """The card of a model.

    Args:
        config: The model's.
        summary: What the report of the run says that made it (`summary.json`); without it the card
            has no results.
        name: Of the run, or the repository on the hub (`owner/name`).
    """
    summary = summary or {}
    title = name or "Text classifier"
    parts = [
        _header(config, summary, title),
        f"# {_plain(title)}",
        _what(config, summary),
        _usage(name),
        _labels(config),
        _results(summary),
        _calibration(config, summary),
        _making(config, summary),
        _sizes(config),
        _limits(config),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _header(config: ModelConfig, summary: Mapping[str, Any], title: str) -> str:
    """The hub's metadata, in YAML. Every string is in JSON's quotes, which YAML reads alike."""
    lines = ["library_name: sparsedistill", "pipeline_tag: text-classification"]
    languages = config.training.get("language", [])
    languages = [languages] if isinstance(languages, str) else languages
    known = [one for one in _listed(languages) if isinstance(one, str) and _LANGUAGE.fullmatch(one)]
    if known:
        lines += ["language:", *(f"- {_quoted(one)}" for one in known)]
    lines += ["tags:", *(f"- {tag}" for tag in ("text-classification", "n-grams", "cpu"))]
    lines += ["metrics:", "- accuracy", "- f1"]
    student = _student(summary)
    scores = [
        (kind, student[field])
        for kind, field in (("accuracy", "accuracy"), ("f1", "macro_f1"))
        if _is_number(student.get(field))
    ]
    if scores:
        split = _text(_in(summary, "splits").get("evaluated_on") or "test")
        lines += [
            "model-index:",
            f"- name: {_quoted(title)}",
            "  results:",
            "  - task:",
            "      type: text-classification",
            "    dataset:",
            f"      name: {_quoted(_text(summary.get('name') or title))}",
            f"      type: {_quoted(_text(summary.get('name') or title))}",
            f"      split: {_quoted(split)}",
            "    metrics:",
        ]
        for kind, value in scores:
            lines += [f"    - type: {kind}", f"      value: {value:.4f}"]
    return "\n".join(["---", *lines, "---"])


def _what(config: ModelConfig, summary: Mapping[str, Any]) -> str:
    teacher = "teacher_accuracy"
    distilled = "student" in config.training or _is_number(_in(summary, "headline").get(teacher))
    origin = ", distilled from a slower model" if distilled else ""
    return (
        f"A text classifier with {len(config.labels)} classes that runs on a CPU{origin}: a deep "
        f"averaging network over the {_number(config.rows)} n-grams of "
        f"{_range(config.spec.min_n, config.spec.max_n)} ({config.spec.tokenizer} tokenizer) that "
        "it knows. It was made by sparsedistill, and holds data only: JSON, safetensors and a "
        "list of n-grams, with checksums; nothing in it is run when it is loaded."
    )


def _usage(name: str | None) -> str:
    on_hub = name is not None and _REPOSITORY.fullmatch(name) is not None
    place = name if on_hub else "path/to/this/directory"
    package = "sparsedistill[hub]" if on_hub else "sparsedistill"
    return "\n".join(
        [
            "## How to use it",
            "",
            "```python",
            f"from sparsedistill import Classifier  # pip install '{package}'",
            f'classifier = Classifier.from_pretrained("{place}")',
            'classifier.predict(["a text", "another"])',
            "```",
            "",
            "```shell",
            f"sparsedistill predict {place} texts.txt --proba",
            "```",
        ]
    )


def _labels(config: ModelConfig) -> str:
    shown = [f"- {_plain(label)}" for label in config.labels[:_LABELS_SHOWN]]
    more = len(config.labels) - len(shown)
    return "\n".join(["## Labels", "", *shown, *([f"- and {more} more"] if more else [])])


def _results(summary: Mapping[str, Any]) -> str:
    results = [row for row in _listed(summary.get("results")) if isinstance(row, Mapping)]
    if not results:
        return ""
    splits = _in(summary, "splits")
    split = _text(splits.get("evaluated_on") or "test")
    texts = f", {_number(splits[split])} texts" if _is_number(splits.get(split)) else ""
    headers = ["model", "accuracy", "macro F1", "agrees with teacher", "texts/s", "bytes"]
    rows = [
        [
            _plain(_text(row.get("title") or row.get("model") or _DASH)),
            _share(row.get("accuracy")) + _spread(row),
            _share(row.get("macro_f1")),
            _share(row.get("agreement")),
            _number(row.get("texts_per_second")),
            _number(row.get("bytes")),
        ]
        for row in results
    ]
    environment = _in(summary, "environment")
    machine = [_plain(_text(environment[key])) for key in ("cpu", "platform") if key in environment]
    threads = environment.get("threads")
    if _is_number(threads):
        machine.append(f"{_number(threads)} threads")
    lines = [f"## Results ({_plain(split)}{texts})", "", _table(headers, rows)]
    student = _text(_in(summary, "headline").get("student") or "")
    title = _student(summary).get("title")
    if student and title:
        lines += ["", f"This model is the packaged one of “{_plain(_text(title))}”."]
    speedup = _in(summary, "headline").get("speedup")
    if _is_number(speedup):
        lines += [f"It answers {speedup:,.0f} times as many texts a second as its teacher."]
    if machine:
        lines += ["", f"Measured on {', '.join(machine)}."]
    return "\n".join(lines)


def _calibration(config: ModelConfig, summary: Mapping[str, Any]) -> str:
    lines = [
        "## Calibration",
        "",
        f"Logits are divided by {config.temperature:.4g} before the softmax"
        + (", as fitted on held-out texts." if config.temperature != 1 else "."),
    ]
    calibration = _in(summary, "calibration")
    before, after = (_in(calibration, when).get("ece") for when in ("before", "after"))
    if _is_number(before) and _is_number(after):
        split = _plain(_text(calibration.get("split") or "test"))
        lines[-1] += f" Expected calibration error on {split}: {after:.4f} ({before:.4f} without)."
    if config.thresholds:
        lines += ["", "Below these probabilities a label is better not given (`abstain_below`):"]
        rows = [
            [_plain(label), _share(value)]
            for label, value in list(config.thresholds.items())[:_LABELS_SHOWN]
        ]
        lines += ["", _table(["label", "probability"], rows)]
    return "\n".join(lines)


def _making(config: ModelConfig, summary: Mapping[str, Any]) -> str:
    lines = ["## How it was made"]
    corpus, splits = _in(summary, "corpus"), _in(summary, "splits")
    data = [
        f"{_number(splits[split])} labelled texts ({split})"
        for split in ("train", "dev", "test")
        if _is_number(splits.get(split))
    ]
    if _is_number(corpus.get("rows")):
        data.append(f"{_number(corpus['rows'])} unlabelled texts")
    if data:
        lines += ["", f"Data: {', '.join(data)}."]
    steps = [one for one in _listed(_in(summary, "package").get("steps")) if _is_step(one)]
    if steps:
        rows = [
            [
                _plain(_text(step["step"])),
                _share(step.get("accuracy")),
                _small(step.get("max_logit_difference")),
                _number(step.get("bytes")),
            ]
            for step in steps
        ]
        headers = ["step of packaging", "accuracy on dev", "largest change of a logit", "bytes"]
        lines += ["", _table(headers, rows)]
    entries = _flat(config.training)
    if entries:
        shown = [[_plain(key), _plain(value)] for key, value in entries[:_ENTRIES_SHOWN]]
        lines += ["", _table(["provenance", ""], shown)]
    if len(lines) == 1:
        lines += ["", "The model says nothing of where it comes from."]
    return "\n".join(lines)


def _sizes(config: ModelConfig) -> str:
    rows = [
        ["n-grams (rows of the table)", _number(config.rows)],
        *([] if config.width == config.hidden else [["numbers in a row", _number(config.width)]]),
        ["hidden units", _number(config.hidden)],
        ["numbers of the table", config.table_type],
        *([_plain(name), f"{size:,} bytes"] for name, (size, _) in sorted(config.files.items())),
        ["together", f"{sum(size for size, _ in config.files.values()):,} bytes"],
    ]
    return "\n".join(["## Size", "", _table(["", ""], rows)])


def _limits(config: ModelConfig) -> str:
    longest = _number(config.max_ngrams)
    return "\n".join(
        [
            "## Limits",
            "",
            "- It sees n-grams and not their order beyond that: what only a whole sentence says "
            "(irony, a negation far away) it can miss.",
            "- It knows the n-grams of the texts that it was made from. In other languages, and in "
            "texts unlike those, it knows few: `Classifier.coverage` tells the share, and an "
            "answer with little coverage is little more than a guess.",
            f"- Of a text, the first {longest} known n-grams count.",
            "- Probabilities are calibrated for texts like the held-out ones; elsewhere they tend "
            "to be too sure.",
            "- It has learnt what its teacher and its labels say, with their errors and leanings.",
        ]
    )


def _student(summary: Mapping[str, Any]) -> Mapping[str, Any]:
    chosen = _in(summary, "headline").get("student")
    for row in _listed(summary.get("results")):
        if isinstance(row, Mapping) and chosen is not None and row.get("model") == chosen:
            return row
    return {}


def _flat(value: object, prefix: str = "", depth: int = 0) -> list[tuple[str, str]]:
    """The leaves of a JSON value, by dotted name."""
    if isinstance(value, Mapping) and depth < 6:
        return [
            entry
            for key, inner in value.items()
            for entry in _flat(inner, f"{prefix}.{key}" if prefix else str(key), depth + 1)
        ]
    if isinstance(value, Sequence) and not isinstance(value, str):
        value = ", ".join(_text(one) for one in value[:20])
    return [(prefix, _text(value))]


def _in(value: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    inner = value.get(key)
    return inner if isinstance(inner, Mapping) else {}


def _listed(value: object) -> Sequence[Any]:
    return value if isinstance(value, Sequence) and not isinstance(value, str) else ()


def _is_step(value: object) -> bool:
    return isinstance(value, Mapping) and "step" in value


def _is_number(value: object) -> TypeGuard[int | float]:
    if isinstance(value, int):
        return not isinstance(value, bool) and abs(value) < 1 << 63
    return isinstance(value, float) and math.isfinite(value)


def _number(value: Any) -> str:  # noqa: ANN401
    return f"{value:,.0f}" if _is_number(value) else _DASH


def _share(value: Any) -> str:  # noqa: ANN401
    return f"{value:.4f}" if _is_number(value) else _DASH


def _small(value: Any) -> str:  # noqa: ANN401
    return f"{value:.2g}" if _is_number(value) else _DASH


def _spread(row: Mapping[str, Any]) -> str:
    return f" ± {row['accuracy_spread']:.4f}" if _is_number(row.get("accuracy_spread")) else ""


def _range(first: int, last: int) -> str:
    return f"{first} to {last} tokens" if first < last else f"{first} token{'s' * (first > 1)}"


def _text(value: object) -> str:
    """A value on one line, not too long, in characters that can be written."""
    text = value if isinstance(value, str) else str(value)
    text = "".join(c if c.isprintable() else " " for c in text[: 2 * _LONGEST])
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"


def _plain(value: str) -> str:
    """Text that Markdown and HTML show as it is, in a line or in a cell of a table."""
    text = _MARKUP.sub(r"\\\g<0>", _text(value).strip())
    for character, entity in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;")):
        text = text.replace(character, entity)
    return text or "(blank)"


def _quoted(value: str) -> str:
    return json.dumps(_text(value), ensure_ascii=False)


def _table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [headers, ["---"] * len(headers), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
