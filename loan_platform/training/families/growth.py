"""Growing a model to the size of least log loss on watched rows, and no further.

Here: when to stop, and the steps for libraries that know none. Not here: what is grown.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable
from typing import Any

# Trees that a booster may grow, and after how many without a gain it stops; small steps need more.
MOST_TREES = 4000


def patience(learning_rate: float) -> int:
    return max(50, round(2.5 / learning_rate))


def grown(
    model: Any,
    sizes: Iterable[int],
    extend: Callable[[int], None],
    loss: Callable[[], float],
    *,
    patience: int,
    report: Callable[[int, float], None],
) -> tuple[Any, int]:
    """A copy of `model` as it was at the size of least log loss, and that size.

    `extend(size)` lets it grow, `loss()` is then its loss on the watched rows, told to `report`. It
    ends when `patience` steps in a row were no better.
    """
    least, best, waited = math.inf, (model, 0), 0
    for size in sizes:
        extend(size)
        now = loss()
        report(size, now)
        if now < least:
            least, best, waited = now, (copy.deepcopy(model), size), 0
        else:
            waited += 1
            if waited == patience:
                break
    return best
