"""How ``[student] least_margin`` and ``balance`` decide which rows of the corpus are learned from.

What is not set is not in a recipe either: students without a choice keep their keys.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sparsedistill.row_choice import RowChoice

if TYPE_CHECKING:
    from storage import Recipe
    from tasks.stage import Made
    from tasks.student_config import StudentConfig


def choice_settings(config: StudentConfig, train: Made) -> dict[str, Any]:
    """Return what a student's recipe says of the choice of its rows; nothing where all are taken.

    Args:
        config: The table ``[student]``.
        train: Whose labels are counted, where the corpus is to be balanced as they are.
    """
    found: dict[str, Any] = {}
    if config.least_margin:
        found["least_margin"] = config.least_margin
    if config.balance == "even":
        found["balance"] = [1] * len(train.statistics["labels"])
    elif config.balance == "train":
        found["balance"] = list(train.statistics["rows_per_label"])
    return found


def choice_of(recipe: Recipe) -> RowChoice | None:
    """Return the choice that a student's recipe asks for; None where it takes all rows."""
    config: Any = recipe.config
    if not {"least_margin", "balance"} & set(config):
        return None
    weights = config.get("balance")
    return RowChoice(
        least_margin=float(config.get("least_margin", 0.0)),
        weights=None if weights is None else tuple(int(weight) for weight in weights),
        seed=int(config["seed"]),
    )
