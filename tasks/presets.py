"""Student settings under one name: the paper's, its released code's, and what we measured best.

The paper and its code differ (``docs/presets.md`` lists how); both are kept, so that either can be
run. A config that sets a key of its own overrides the preset's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping

PresetName = Literal["default", "paper", "released-code"]

_PAPER: dict[str, Any] = {
    "width": 1000,
    "hidden": 1000,
    "activation": "relu",
    "init_scale": 1.0,
    "objective": "soft",
    "temperature": 1.0,
    "epochs": None,
    "updates": 1_000_000,
    "batch_size": 2048,
    "learning_rate": 5e-4,
    "warmup": 0.0,
    "decay": "none",
    "evaluate_every": 100_000,
    "feature_dropout": 0.0,
    "dropout": 0.0,
    "weight_decay": 0.0,
    "betas": (0.9, 0.999),
    "epsilon": 1e-8,
    "scratch_epochs": 30,
    "scratch_batch_size": 2048,
}

_RELEASED_CODE: dict[str, Any] = {
    **_PAPER,
    "activation": "tanh",
    "warmup": 0.06,
    "decay": "linear",
    "evaluate_every": 10_000,
    "feature_dropout": 0.1,
    "dropout": 0.1,
    "weight_decay": 0.01,
    "betas": (0.9, 0.98),
    "epsilon": 1e-6,
}

_DEFAULT: dict[str, Any] = {
    **_PAPER,
    "width": 128,
    "hidden": 128,
    "init_scale": 0.05,
    "temperature": 2.0,
    "epochs": 6,
    "updates": None,
    "batch_size": 128,
    "learning_rate": 1e-3,
    "decay": "linear",
    "evaluate_every": None,
    "feature_dropout": 0.1,
    "dropout": 0.1,
    "scratch_epochs": 20,
    "scratch_batch_size": 64,
}

PRESETS: Mapping[PresetName, Mapping[str, Any]] = {
    "default": _DEFAULT,
    "paper": _PAPER,
    "released-code": _RELEASED_CODE,
}
