"""A summary like the quickstart's, made by arithmetic so that every part of it is consistent."""

from __future__ import annotations

import math
from typing import Any


def _training(model: str, seed: int, start: float, end: float) -> dict[str, Any]:
    points = [
        {
            "update": 25 * step,
            "epoch": 0.5 * step,
            "loss": (1.3 - end) * math.exp(-step / 8)
            + 0.8
            - end
            + 0.01 * math.sin(7 * step + seed),
            "dev_accuracy": end
            - (end - start) * math.exp(-step / 5)
            + 0.004 * math.sin(5 * step + 2 * seed)
            - 0.0006 * max(0, step - 20),
            "seconds": 1.7 * step,
        }
        for step in range(1, 33)
    ]
    best = max(points, key=lambda point: point["dev_accuracy"])
    return {"model": model, "seed": seed, "best_update": best["update"], "points": points}


def _bins(bend: float) -> list[dict[str, Any]]:
    confidences = [0.553, 0.651, 0.752, 0.853, 0.961]
    counts = [412, 455, 603, 801, 1729]
    return [
        {
            "low": 0.5 + 0.1 * i,
            "high": 0.6 + 0.1 * i,
            "confidence": confidence,
            "accuracy": confidence - bend * (confidence - 0.5) - 0.008 * (-1) ** i,
            "count": count,
        }
        for i, (confidence, count) in enumerate(zip(confidences, counts, strict=True))
    ]


def _result(model: str, title: str, *numbers: float | None) -> dict[str, Any]:
    keys = ("accuracy", "accuracy_spread", "seeds", "macro_f1", "agreement")
    keys += ("texts_per_second", "bytes")
    return {"model": model, "title": title, **dict(zip(keys, numbers, strict=True))}


_EXAMPLES = [
    (
        "not a bad film at all , though it takes its time to get where it is going",
        "positive",
        ("positive", 0.93),
        ("negative", 0.71),
        [("bad film", 1.84), ("not bad", -0.92), ("at all", 0.4), ("takes its time", 0.22)],
    ),
    (
        "the kind of movie you could watch twice and still not know what you saw",
        "negative",
        ("negative", 0.62),
        ("positive", 0.58),
        [("movie you", 0.51), ("and still", 0.47), ("not know", -0.66)],
    ),
    (
        "a stylish thriller that mistakes confusion for depth",
        "negative",
        ("negative", 0.97),
        ("positive", 0.81),
        [("stylish", 1.21), ("stylish thriller", 0.9), ("depth", 0.7), ("mistakes", -0.8)],
    ),
    (
        "too long by half , and i would not have missed a minute",
        "positive",
        ("negative", 0.55),
        ("positive", 0.52),
        [("too long", -1.31), ("would not have missed", 1.02), ("minute", 0.35)],
    ),
    ("meh", "negative", ("negative", 0.88), ("positive", 0.51), []),
]


def _example(text: str, label: str, teacher: Any, student: Any, ngrams: Any) -> dict[str, Any]:
    return {
        "text": text,
        "label": label,
        "teacher": {"label": teacher[0], "confidence": teacher[1]},
        "student": {"label": student[0], "confidence": student[1]},
        "ngrams": [{"ngram": ngram, "contribution": value} for ngram, value in ngrams],
        "words": _words(text, ngrams),
    }


def _words(text: str, ngrams: Any) -> list[list[Any]]:
    """Each word's even part of the n-grams it is in, as the explanation shares them out."""
    values: dict[tuple[int, int], float] = {}
    for ngram, value in ngrams:
        at = text.find(ngram)
        for word in ngram.split() if at >= 0 else []:
            at = text.index(word, at)
            span = (at, at + len(word))
            values[span] = values.get(span, 0.0) + value / len(ngram.split())
    return [[*span, value] for span, value in sorted(values.items())]


_STAGES = [
    ("corpus", 8, 8, 0, 12.4, 9_800_000, 160_000),
    ("teacher", 1, 1, 0, 1810.0, 90_900_000, None),
    ("logits", 9, 8, 1, 913.0, 4_700_000, 164_000),
    ("ngrams", 9, 8, 1, 6.1, 61_000_000, 2_400_000),
    ("vocabulary", 1, 0, 1, 3.2, 5_100_000, 180_000),
    ("features", 9, 0, 9, 4.8, 21_300_000, 164_000),
    ("student", 9, 0, 9, 372.0, 415_000_000, None),
    ("finetune", 3, 0, 3, 9.7, 138_000_000, None),
    ("package", 1, 0, 1, 2.2, 12_900_000, None),
    ("evaluation", 1, 0, 1, 44.0, 81_000, None),
]
_EDGES = [
    ("corpus", "logits"),
    ("teacher", "logits"),
    ("dataset", "teacher"),
    ("dataset", "logits"),
    ("corpus", "ngrams"),
    ("dataset", "ngrams"),
    ("ngrams", "vocabulary"),
    ("corpus", "features"),
    ("dataset", "features"),
    ("vocabulary", "features"),
    ("features", "student"),
    ("logits", "student"),
    ("student", "finetune"),
    ("features", "finetune"),
    ("dataset", "finetune"),
    ("finetune", "package"),
    ("vocabulary", "package"),
    ("package", "evaluation"),
    ("teacher", "evaluation"),
    ("dataset", "evaluation"),
    ("evaluation", "report"),
]


def _lineage() -> dict[str, Any]:
    counts = {stage: artifacts for stage, artifacts, *_ in _STAGES}
    kinds = ["dataset", *counts, "report"]
    keys = {kind: f"{(i * 2654435761 + 77) % 2**32:08x}" * 4 for i, kind in enumerate(kinds)}
    return {
        "nodes": [
            {"id": f"{k}/{keys[k]}", "kind": k, "count": counts.get(k, 1), "key": keys[k]}
            for k in kinds
        ],
        "edges": [[f"{a}/{keys[a]}", f"{b}/{keys[b]}"] for a, b in _EDGES],
    }


def _step(
    step: str, change: float, accuracy: float, agreement: float, rows: int, size: int
) -> dict[str, Any]:
    return {
        "step": step,
        "rows": rows,
        "bytes": size,
        "max_logit_difference": change,
        "accuracy": accuracy,
        "agreement": agreement,
        "texts_per_second": 133_000.5,
    }


def make_summary() -> dict[str, Any]:
    return {
        "format": 1,
        "name": "quickstart",
        "created": "2026-11-21T04:31:07Z",
        "tool_version": "0.1.0",
        "labels": ["negative", "positive"],
        "command": "sparsedistill distill experiments/quickstart.toml",
        "environment": {
            "python": "3.11.7",
            "platform": "Linux-6.1-x86_64-with-glibc2.36",
            "cpu": "Intel(R) Xeon(R) Platinum 8481C CPU @ 2.70GHz",
            "threads": 2,
            "packages": {"torch": "2.13.0", "transformers": "5.1.0", "numpy": "2.4.1"},
        },
        "headline": {
            "student": "dan_kd_ft",
            "accuracy": 0.7764,
            "teacher_accuracy": 0.7973,
            "retained": 0.9738,
            "speedup": 812.4,
            "bytes": 12_900_000,
        },
        "results": [
            _result(
                "tfidf_lr", "TF-IDF + LR", 0.7512, None, 1, 0.7508, 0.8021, 39_210.7, 8_812_345
            ),
            _result(
                "dan_scratch",
                "DAN (labels)",
                0.7391,
                0.0062,
                3,
                0.7386,
                0.7911,
                132_511.2,
                46_080_000,
            ),
            _result(
                "dan_kd_private",
                "DAN (KD, private)",
                0.7655,
                0.0023,
                3,
                0.7651,
                0.8634,
                131_960.0,
                46_080_000,
            ),
            _result("dan_kd", "DAN (KD)", 0.7706, 0.0019, 3, 0.7701, 0.8713, 132_004.9, 46_080_000),
            _result(
                "dan_kd_ft", "DAN (KD+FT)", 0.7764, 0.0031, 3, 0.7763, 0.8688, 133_233.1, 12_900_000
            ),
            _result(
                "teacher", "MiniLM-L6 (teacher)", 0.7973, None, 1, 0.7972, None, 164.0, 90_900_000
            ),
        ],
        "splits": {"train": 4000, "dev": 2000, "test": 4000, "evaluated_on": "test"},
        "corpus": {
            "rows": 160_000,
            "shards": 8,
            "read": 163_801,
            "dropped": {"empty": 12, "duplicate": 3551, "held_out": 236, "bad": 2},
            "covered": None,
        },
        "training": [
            *(_training("dan_scratch", seed, 0.55, 0.741) for seed in range(3)),
            *(_training("dan_kd_private", seed, 0.57, 0.765) for seed in range(3)),
            *(_training("dan_kd", seed, 0.58, 0.772) for seed in range(3)),
        ],
        "calibration": {
            "split": "test",
            "temperature": 1.31,
            "before": {"ece": 0.0571, "bins": _bins(0.22)},
            "after": {"ece": 0.0092, "bins": _bins(0.02)},
        },
        "teacher": {
            "calibration": {
                "temperature": 1.62,
                "splits": [
                    {
                        "split": split,
                        "rows": rows,
                        "of": of,
                        "accuracy": accuracy,
                        "before": {"ece": 0.0832, "noise": 0.0095, "bins": _bins(0.3)},
                        "after": {"ece": 0.0119, "noise": 0.0104, "bins": _bins(0.03)},
                    }
                    for split, rows, of, accuracy in (
                        ("dev", 2000, 2000, 0.8015),
                        ("test", 3990, 4000, 0.7973),
                    )
                ],
            },
            "confidence": {
                "counts": [
                    *[0] * 10,
                    4100,
                    4300,
                    4700,
                    5200,
                    6100,
                    7400,
                    9800,
                    14_100,
                    26_300,
                    77_990,
                ],
                "unsure_below": 0.7,
                "unsure": 18_300,
            },
            "classes": [
                {"label": "negative", "train": 1980, "predicted": 154_788},
                {"label": "positive", "train": 2020, "predicted": 5202},
            ],
            "quarantined": {"logits are not finite": 7, "longer than the teacher reads": 3},
            "chosen": {
                "settings": {"least_margin": 0.2, "balance": [1, 1]},
                "labelled": [154_788, 5202],
                "small_margin": [8000, 400],
                "over_share": [70_993, 0],
                "kept": [75_795, 4802],
            },
        },
        "confusion": {
            "labels": ["negative", "positive"],
            "models": {
                "teacher": [[1611, 389], [422, 1578]],
                "dan_kd_ft": [[1562, 438], [456, 1544]],
            },
        },
        "disagreements": {
            "counts": {
                "both_right": 2876,
                "only_teacher": 313,
                "only_student": 230,
                "both_wrong": 581,
            },
            "examples": [_example(*example) for example in _EXAMPLES],
        },
        "ngrams": {
            "rows": 180_000,
            "distinct": 912_345,
            "per_order": [
                {"order": 1, "rows": 21_004},
                {"order": 2, "rows": 74_512},
                {"order": 3, "rows": 55_873},
                {"order": 4, "rows": 28_611},
            ],
            "coverage": [
                {"size": size, "share": 0.09 * math.log10(size) - 0.02}
                for size in (1000, 3000, 10_000, 30_000, 100_000, 180_000)
            ],
            "out_of_vocabulary": 0.443,
            "known_by_order": [
                {"order": 1, "known": 43_011, "occurrences": 44_502},
                {"order": 2, "known": 29_780, "occurrences": 40_502},
                {"order": 3, "known": 9_870, "occurrences": 36_502},
                {"order": 4, "known": 3_100, "occurrences": 32_502},
            ],
            "known_per_text": {"mean": 21.7, "p10": 7, "p50": 19, "p90": 41},
            "texts_without": 3,
        },
        "package": {
            "steps": [
                _step("fold", 2.4e-06, 0.7766, 1.0, 180_000, 184_320_000),
                _step("prune", 0.0612, 0.7765, 0.985, 50_000, 51_200_000),
                _step("quantise", 0.0107, 0.7764, 0.984, 50_000, 12_900_000),
            ],
            "curve": [
                {
                    "rule": rule,
                    "share": share,
                    "rows": round(180_000 * share),
                    "accuracy": 0.7766 + loss * math.log10(share) ** 2,
                    "agreement": 1 + loss * math.log10(share),
                }
                for rule, loss in (
                    ("contribution", -0.008),
                    ("count", -0.015),
                    ("train_count", -0.012),
                    ("order", -0.019),
                )
                for share in (1.0, 0.3, 0.1, 0.03, 0.01, 0.003, 0.001)
            ],
            "tried": [],
        },
        "stages": [
            dict(
                zip(
                    ("stage", "artifacts", "cached", "built", "seconds", "bytes", "rows"),
                    stage,
                    strict=True,
                )
            )
            for stage in _STAGES
        ],
        "lineage": _lineage(),
    }
