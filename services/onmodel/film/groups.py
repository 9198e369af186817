"""Which instances are one character: clusters of signature vectors. Arrays in, labels out.

HDBSCAN's leaves (Campello et al. 2013) are small and mostly pure. Where most pictures of a set show one character,
density alone takes it for background; so dense groups without a leaf become clusters too. Nobody is twice in one
picture: a cluster that would have somebody there twice too often is parted, and alike clusters are joined unless they
meet in pictures. What lies clearly in a cluster's midst joins it.
"""

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from pydantic import Field

from onmodel.core.config import Config

Vectors = npt.NDArray[np.float64]
"""float64 (n, width); rows of unit length but for incomplete signatures (see `Signature.vector`)."""
Labels = npt.NDArray[np.int64]
"""int64 (n,): 0, 1, … by falling size; -1 belongs to none."""


class GroupingConfig(Config):
    """How clusters are found. Defaults were chosen on casts of eight rendered characters, with the bundled scorer."""

    min_cluster_size: int | None = Field(default=None, ge=2)
    """Fewer instances are no cluster; None = `SIZE_FACTOR` times the square root of their number, at least 5."""
    min_samples: int = Field(default=4, ge=1)
    """HDBSCAN's: neighbours that make a place dense. With 3, fragments; with 6 and more, rare characters are lost."""
    reach: float = Field(default=0.55, gt=0, lt=2)
    """Distance (Euclidean, of unit vectors) within which neighbours make a dense group."""
    join_likeness: float = Field(default=0.735, ge=-1, le=1)
    """Clusters of this mean cosine between their members are one character: 0.75 was the least between fragments of
    one in three casts, 0.71 the highest between two characters."""
    meetings: float = Field(default=0.05, ge=0, le=1)
    """Two clusters that meet in this share of the smaller one's pictures (and at least in one) are never joined; a
    cluster with as many pairs in one picture (and at least two) is parted. Pure ones have 0 or 1 such pair, from a
    body that was found twice; two look-alikes had 10 among 90."""
    adopt_likeness: float = Field(default=0.80, ge=-1, le=1)
    """An outlier of this mean cosine to its nearest members joins their cluster."""
    adopt_margin: float = Field(default=0.03, ge=0)
    """By so much must the second cluster be farther."""


SIZE_FACTOR = 0.7
NEAREST = 5
"""Members that an outlier is compared with."""
LEAST = 5


def group(vectors: Vectors, pictures: Sequence[int], certain: Sequence[bool], config: GroupingConfig) -> Labels:
    """Cluster instances.

    Args:
        vectors: of all instances.
        pictures: which picture each is in.
        certain: whose vectors are complete. The others found no cluster and bridge none; they may join one.
        config: thresholds.
    """
    sure = np.asarray(certain, dtype=np.bool_)
    labels = np.full(len(vectors), -1, dtype=np.int64)
    labels[sure] = _clusters(vectors[sure], np.asarray(pictures, dtype=np.int64)[sure], config)
    return by_size(adopted(labels, vectors, config))


def _clusters(vectors: Vectors, pictures: npt.NDArray[np.int64], config: GroupingConfig) -> Labels:
    # Imported here: scikit-learn takes a second, which naming and pages need not wait for.
    from sklearn.cluster import DBSCAN, HDBSCAN

    count = len(vectors)
    size = config.min_cluster_size or max(LEAST, round(SIZE_FACTOR * math.sqrt(count)))
    labels = np.full(count, -1, dtype=np.int64)
    if count < min(size, config.min_samples + 1):
        return labels
    if count >= 2 * size:
        leaves = HDBSCAN(
            min_cluster_size=size,
            min_samples=config.min_samples,
            cluster_selection_method="leaf",
            copy=True,  # pyright: ignore[reportArgumentType]
        )
        labels = np.asarray(leaves.fit_predict(vectors), dtype=np.int64)
    dense = np.asarray(DBSCAN(eps=config.reach, min_samples=config.min_samples).fit_predict(vectors), dtype=np.int64)
    for component in range(int(dense.max(initial=-1)) + 1):
        inside = dense == component
        if int(inside.sum()) >= min(size, LEAST) and (labels[inside] < 0).all():
            labels[inside] = labels.max() + 1
    labels = _parted(labels, vectors, pictures, config)
    return _joined(labels, vectors, pictures, config)


def _parted(labels: Labels, vectors: Vectors, pictures: npt.NDArray[np.int64], config: GroupingConfig) -> Labels:
    """Part clusters in which somebody would often be twice in one picture: they hold look-alikes.

    The differences between two who meet in a picture point from one character to the other, so members are parted
    along the main axis of these differences.
    """
    labels = labels.copy()
    waiting = [int(c) for c in np.unique(labels) if c >= 0]
    while waiting:
        cluster = waiting.pop()
        rows = np.flatnonzero(labels == cluster)
        members, where = vectors[rows], pictures[rows]
        first, second = np.nonzero(np.triu(where[:, None] == where[None], 1))
        if first.size < max(2.0, config.meetings * len(rows)):
            continue
        along = members @ _main_axis(members[first] - members[second])
        upper = along >= _valley(along)
        parted = int((upper[first] != upper[second]).sum())
        if 2 * parted < first.size or min(int(upper.sum()), int((~upper).sum())) < LEAST:
            continue
        labels[rows[upper]] = labels.max() + 1
        waiting += [cluster, int(labels.max())]
    return labels


def _main_axis(differences: Vectors) -> npt.NDArray[np.float64]:
    """The unit direction (width,) along which rows (n, width) are longest, whatever their signs."""
    return np.linalg.svd(differences, full_matrices=False)[2][0]


def _valley(values: npt.NDArray[np.float64]) -> float:
    """The cut that leaves the two sides of it least spread (Otsu 1979, without a histogram)."""
    order = np.sort(values)
    counts = np.arange(1, len(order))
    sums = np.cumsum(order)[:-1]
    low, high = sums / counts, (order.sum() - sums) / (len(order) - counts)
    best = int(np.argmax(counts * (len(order) - counts) * (high - low) ** 2))
    return float((order[best] + order[best + 1]) / 2)


def _joined(labels: Labels, vectors: Vectors, pictures: npt.NDArray[np.int64], config: GroupingConfig) -> Labels:
    """Join the likest pair of clusters until none is alike enough."""
    labels = labels.copy()
    while True:
        members = {int(c): np.flatnonzero(labels == c) for c in np.unique(labels) if c >= 0}
        # The mean cosine between all members of two clusters is the product of their mean vectors.
        middle = {c: vectors[rows].mean(axis=0) for c, rows in members.items()}
        pairs = [
            (float(middle[a] @ middle[b]), a, b)
            for a in members
            for b in members
            if a < b and not _meet(pictures[members[a]], pictures[members[b]], config)
        ]
        likeness, a, b = max(pairs, default=(-1.0, 0, 0))
        if likeness < config.join_likeness:
            return labels
        labels[members[b]] = a


def _meet(first: npt.NDArray[np.int64], second: npt.NDArray[np.int64], config: GroupingConfig) -> bool:
    shared = np.intersect1d(first, second).size
    return shared >= max(1.0, config.meetings * min(first.size, second.size))


def adopted(labels: Labels, vectors: Vectors, config: GroupingConfig) -> Labels:
    """Labels with the outliers that lie clearly within a cluster in it."""
    found = [int(c) for c in np.unique(labels) if c >= 0]
    outliers = np.flatnonzero(labels < 0)
    if not found or not outliers.size:
        return labels
    near = np.stack([nearness(vectors[outliers], vectors[labels == c]) for c in found], axis=1)
    order = np.sort(near, axis=1)
    clear = order[:, -1] - (order[:, -2] if len(found) > 1 else -1.0) >= config.adopt_margin
    taken = (order[:, -1] >= config.adopt_likeness) & clear
    labels = labels.copy()
    labels[outliers[taken]] = np.array(found)[near.argmax(axis=1)[taken]]
    return labels


def nearness(vectors: Vectors, members: Vectors) -> npt.NDArray[np.float64]:
    """Mean cosine of each vector (n, width) to its `NEAREST` members: float64 (n,)."""
    cosines = np.sort(vectors @ members.T, axis=1)
    return cosines[:, -min(NEAREST, len(members)) :].mean(axis=1)


def by_size(labels: Labels) -> Labels:
    """The same clusters numbered by falling size; equal sizes keep the order of their first members."""
    found = [int(c) for c in dict.fromkeys(labels.tolist()) if c >= 0]
    order = sorted(found, key=lambda c: -int((labels == c).sum()))
    numbered = np.full(len(labels), -1, dtype=np.int64)
    for number, cluster in enumerate(order):
        numbered[labels == cluster] = number
    return numbered


def similarity(vectors: Vectors, labels: Labels) -> npt.NDArray[np.float64]:
    """Cosine of each instance to the middle of its cluster: float64 (n,), NaN for outliers."""
    values = np.full(len(labels), np.nan)
    for cluster in range(int(labels.max(initial=-1)) + 1):
        rows = labels == cluster
        middle = vectors[rows].mean(axis=0)
        values[rows] = vectors[rows] @ (middle / max(float(np.linalg.norm(middle)), 1e-12))
    return values


def matches(references: Sequence[Vectors], vectors: Vectors, labels: Labels, least: float) -> dict[int, int]:
    """Which reference set each cluster shows: cluster -> index of the set; clusters of nobody known are left out.

    A cluster is whose references its members are nearest to, if at least half of the set's pictures are as near to
    members as the least near tenth of the members is to the others, or at least of cosine `least`.
    """
    found: dict[int, int] = {}
    for cluster in range(int(labels.max(initial=-1)) + 1):
        members = vectors[labels == cluster]
        usual = np.quantile([float(nearness(m[None], np.delete(members, k, axis=0))[0]) for k, m in enumerate(members)],
                            0.1) if len(members) > 1 else 1.0  # fmt: skip
        scores = [float(np.median(nearness(rows, members))) for rows in references]
        best = int(np.argmax(scores)) if scores else -1
        if best >= 0 and scores[best] >= min(float(usual), least):
            found[cluster] = best
    return found
