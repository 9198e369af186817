"""Mixed-integer linear programmes for HiGHS through scipy, with the types that scipy's own signatures lack."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import optimize
from scipy.sparse import csr_matrix, vstack

Vector = npt.NDArray[np.float64]


def rows_of(matrix: csr_matrix) -> int:
    """The number of a matrix's rows, which scipy's types leave open."""
    shape: Any = matrix.shape
    return int(shape[0])


@dataclass(frozen=True, slots=True)
class Solved:
    """What the solver found."""

    x: Vector | None
    """None where it found nothing."""
    cost: float
    """Infinite where it found nothing."""
    gap: float
    in_time: bool


@dataclass(frozen=True, slots=True)
class Problem:
    """Least cost · x with low <= matrix · x <= high and 0 <= x <= upper; the first `whole` variables are integers."""

    cost: Vector
    upper: Vector
    whole: int
    matrix: csr_matrix
    low: Vector
    high: Vector

    def at_most(self, row: Vector, value: float) -> "Problem":
        """With one more row, at most `value`."""
        return replace(
            self,
            matrix=csr_matrix(vstack([self.matrix, csr_matrix(row)])),
            low=np.append(self.low, -np.inf),
            high=np.append(self.high, value),
        )

    def solve(self, gap: float, seconds: float | None = None) -> Solved:
        """The least cost in whole numbers, to within a relative `gap`."""
        untyped: Any = optimize
        found = untyped.milp(
            self.cost,
            integrality=np.arange(len(self.cost)) < self.whole,
            bounds=untyped.Bounds(np.zeros_like(self.upper), self.upper),
            constraints=untyped.LinearConstraint(self.matrix, self.low, self.high),
            options={"mip_rel_gap": gap} | ({} if seconds is None else {"time_limit": seconds}),
        )
        if found.x is None:
            return Solved(None, np.inf, 1.0, found.status != 1)
        return Solved(found.x, float(found.fun), float(found.mip_gap or 0.0), found.status != 1)

    def relaxed(self) -> tuple[float, Vector] | None:
        """The least cost in fractions, and the reduced cost of each whole variable; None where it is not found."""
        below, above = np.isfinite(self.high), np.isfinite(self.low)
        untyped: Any = optimize
        found = untyped.linprog(
            self.cost,
            A_ub=vstack([self.matrix[below], -self.matrix[above]]),
            b_ub=np.concatenate([self.high[below], -self.low[above]]),
            bounds=np.stack([np.zeros_like(self.upper), self.upper], axis=1),
            method="highs",
        )
        return None if found.status != 0 else (float(found.fun), np.asarray(found.lower.marginals)[: self.whole])
