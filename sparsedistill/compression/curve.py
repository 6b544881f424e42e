"""The pruning curve: accuracy on held-out texts by how many rows stay, for each rule."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sparsedistill.compression.pruning import rows_of_share

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sparsedistill.compression.held_out import HeldOut
    from sparsedistill.compression.pruning import Rankings

SHARES = (1.0, 0.3, 0.1, 0.03, 0.01, 0.003, 0.001)


def pruning_curve(
    held_out: HeldOut,
    rankings: Rankings,
    shares: Sequence[float] = SHARES,
) -> list[dict[str, Any]]:
    """Return one row a rule and share: rule, share, rows, accuracy and agreement.

    Args:
        held_out: The full model on labelled texts.
        rankings: Of its rows.
        shares: Of the rows that stay.
    """
    found = []
    for rule in rankings.rules:
        for share in shares:
            rows = rows_of_share(held_out.rows, share)
            score = held_out.score(rankings[rule], rows)
            found.append(
                {
                    "rule": rule,
                    "share": share,
                    "rows": rows,
                    "accuracy": score.accuracy,
                    "agreement": score.agreement,
                }
            )
    return found
