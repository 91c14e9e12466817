"""First item vectors from which items stand near one another in histories."""

from collections.abc import Iterable

import numpy as np
from scipy import sparse
from scipy.sparse.linalg import svds

WINDOW = 10
"""Items at most so many places apart occur together."""

# Contexts are drawn by count to this power, as in word2vec: rare ones weigh a little less.
_SMOOTHING = 0.75
_UNIT = 1024
# Pairs held before they are added up.
_PAIRS_AT_ONCE = 4_000_000


def co_occurrence_vectors(
    sequences: Iterable[tuple[np.ndarray, np.ndarray]],
    num_items: int,
    dimension: int,
    window: int = WINDOW,
    seed: int = 0,
) -> np.ndarray:
    """Factorises the positive pointwise mutual information of items that stand near one another.

    Counts are weighted by `distance^-1/2`. Of the matrix `M` with
    `M_uv = max(0, log(p(u, v) / (p(u) p'(v))))`, the vectors are `U S^(1/2)` of its truncated
    singular value decomposition, turned at random, so that no dimension stands out, and scaled
    to a mean square length of 1. An item that stood near no other has a random vector.

    Args:
      sequences: Batches of training windows: rows, int `[n, L]`, from 1, 0 is padding; and which
        of them are targets, bool `[n, L]`. A pair counts where its later item is a target: windows
        overlap, but every target stands in one of them.
      num_items: Rows without padding, V.
      dimension: Width D of a vector.
      window: Greatest distance of two items that count.
      seed: Of the decomposition's start, the turn, and random vectors.

    Returns:
      float32 `[V, D]`; its first row is that of item 1.

    Reference: Levy and Goldberg, *Neural Word Embedding as Implicit Matrix Factorization*, NeurIPS
    2014; `docs/model.md`, section 0.
    """
    generator = np.random.default_rng(seed)
    counts = _count(sequences, num_items, window)
    vectors = _factorise(_positive_information(counts), dimension, seed)
    turn, _ = np.linalg.qr(generator.normal(size=[dimension, dimension]))
    vectors = vectors @ turn
    square = (vectors**2).sum(axis=1)
    known = square > 1e-12 * max(square.max(initial=0.0), 1e-12)
    if known.any():
        vectors /= np.sqrt(square[known].mean())
    random = generator.normal(scale=dimension**-0.5, size=vectors.shape)
    return np.where(known[:, np.newaxis], vectors, random).astype(np.float32)


def content_kernels(
    features: dict[str, np.ndarray],
    presence: dict[str, np.ndarray],
    vectors: np.ndarray,
    weights: np.ndarray,
    ridge: float = 0.3,
) -> dict[str, np.ndarray]:
    """Regresses item vectors on content: how a modality's features say where an item stands.

    Args:
      features: Whitened features, float `[V, d_m]`, of every modality.
      presence: bool `[V]` of every modality.
      vectors: float `[V, D]`, as from `first_vectors.wanted_of_content`.
      weights: float `[V]`, of every item; those that weigh nothing take no part.
      ridge: Penalty, in mean variances of a feature.

    Returns:
      Kernels `[d_m, D]` of every modality that an item has, whose predictions have a variance of 1.
    """
    kernels = {}
    for name, all_features in features.items():
        present = np.asarray(presence[name], bool) & (weights > 0)
        if not present.any():
            continue
        x, y = np.asarray(all_features, np.float32)[present], vectors[present]
        weighted = x * weights[present].astype(np.float32)[:, np.newaxis]
        gram = weighted.T @ x
        penalty = ridge * max(float(np.trace(gram)) / len(gram), 1e-6)
        kernel = np.linalg.solve(gram + penalty * np.eye(len(gram)), weighted.T @ y)
        kernels[name] = (kernel / max(float((x @ kernel).std()), 1e-6)).astype(np.float32)
    return kernels


def _count(
    sequences: Iterable[tuple[np.ndarray, np.ndarray]], num_items: int, window: int
) -> sparse.csr_matrix:
    total = sparse.csr_matrix((num_items, num_items))
    pairs: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    held = 0

    def fold() -> sparse.csr_matrix:
        earlier, later, weights = map(np.concatenate, zip(*pairs, strict=True))
        return total + sparse.csr_matrix((weights, (earlier, later)), shape=total.shape)

    for batch, is_target in sequences:
        for distance in range(1, min(window, batch.shape[1] - 1) + 1):
            earlier, later = batch[:, :-distance], batch[:, distance:]
            both = (earlier > 0) & (later > 0) & is_target[:, distance:]
            # A multiple of a power of two: sums are exact, whatever the order of batches.
            weights = np.full(int(both.sum()), round(_UNIT * distance**-0.5) / _UNIT)
            pairs.append((earlier[both] - 1, later[both] - 1, weights))
            held += len(weights)
        if held > _PAIRS_AT_ONCE:
            total, pairs, held = fold(), [], 0
    if pairs:
        total = fold()
    return total + total.T


def _positive_information(counts: sparse.csr_matrix) -> sparse.csr_matrix:
    degrees = np.maximum(np.asarray(counts.sum(axis=1)).ravel(), 1e-12)
    context = degrees**_SMOOTHING
    context /= context.sum()
    entries = counts.tocoo()
    expected = degrees[entries.row] * context[entries.col]
    information = np.log(np.maximum(entries.data, 1e-12) / expected)
    positive = information > 0
    places = (entries.row[positive], entries.col[positive])
    return sparse.csr_matrix((information[positive], places), shape=counts.shape)


def _factorise(matrix: sparse.csr_matrix, dimension: int, seed: int) -> np.ndarray:
    items = matrix.shape[0]
    if not matrix.nnz:
        return np.zeros([items, dimension])
    if items <= 2 * dimension:
        # The iteration wants fewer vectors than there are items.
        left, strengths, _ = np.linalg.svd(matrix.toarray())
    else:
        left, strengths, _ = svds(matrix, k=dimension, random_state=seed)
    found = min(dimension, items)
    order = np.argsort(-strengths)[:found]
    vectors = np.zeros([items, dimension])
    vectors[:, :found] = left[:, order] * np.sqrt(strengths[order])
    return vectors
