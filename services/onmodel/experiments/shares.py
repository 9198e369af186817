"""Shares of pictures on model as arrays, of the units that have all that is compared."""

from collections import defaultdict
from collections.abc import Iterable, Sequence

import numpy as np

from onmodel.core.errors import UserError
from onmodel.experiments.judge import PictureFigure
from onmodel.experiments.statistics import Array


def tensor(
    pictures: Iterable[PictureFigure], trials: Sequence[str], scenarios: Sequence[str]
) -> tuple[Array, list[tuple[str, int]]]:  # fmt: skip
    """Shares (T trials, U units, K scenarios, P prompts) of on-model pictures, and the units, sorted.

    A unit of which any of `trials` is not judged is left out.

    Raises:
        UserError: that leaves none.
    """
    hits: dict[tuple[str, str, int, str], dict[int, list[bool]]] = defaultdict(lambda: defaultdict(list))
    for row in pictures:
        hits[row.trial, row.character, row.seed, row.scenario][row.prompt].append(row.on_model)
    every = sorted({(character, seed) for _, character, seed, _ in hits})
    units = [unit for unit in every if all((trial, *unit, scenarios[0]) in hits for trial in trials)]
    if not units:
        raise UserError(f"no unit has all of {', '.join(trials)} judged; run the steps make and judge again")

    def row_of(trial: str, unit: tuple[str, int], scenario: str) -> list[float]:
        return [float(np.mean(values)) for _, values in sorted(hits[trial, *unit, scenario].items())]

    values = [[[row_of(trial, unit, scenario) for scenario in scenarios] for unit in units] for trial in trials]
    return np.array(values, dtype=np.float64), units
