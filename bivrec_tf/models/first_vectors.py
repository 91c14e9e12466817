"""Where item vectors start: co-occurrence, content, and what both say of one item."""

import numpy as np

MOST_COUNTED = 50.0
"""An item with more interactions weighs no more in what content is fitted to."""
TRANSFER_PRIOR = 3.0
"""Interactions of an item that another model's word on its content counts as."""


def blended(
    vectors: np.ndarray, content_vectors: np.ndarray, counts: np.ndarray, prior: float
) -> np.ndarray:
    """Returns `(n x + n0 c) / (n + n0)`: content counts as `n0` interactions, co-occurrence as `n`.

    What is known of an item with few interactions is mostly its content; an often seen one has
    said more than its title does.

    Args:
      vectors: float `[V, D]`, the x, of mean square length 1.
      content_vectors: float `[V, D]`, the c, in the same space; zero where there is no content.
      counts: `[V]`, the n, training interactions.
      prior: The n0.
    """
    has_content = np.abs(content_vectors).sum(axis=1, keepdims=True) > 0
    share = np.where(has_content, prior, 0.0) / np.maximum(counts[:, np.newaxis] + prior, 1e-9)
    return ((1.0 - share) * vectors + share * content_vectors).astype(np.float32)


def wanted_of_content(
    vectors: np.ndarray, counts: np.ndarray, known: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the vectors that content is to say of items, and how much each one weighs.

    They are those of co-occurrence, weighing as many interactions as an item has, up to
    `MOST_COUNTED`; and, weighing `TRANSFER_PRIOR` interactions of every item, what another model
    knows of its content, turned towards them. Cold items together weigh no more than the trained
    ones: a shop lists many that nobody has bought.

    Args:
      vectors: float `[num_trained, D]`, the trained items' first.
      counts: `[num_items]`, training interactions; 0 for the cold items, which come last.
      known: float `[num_items, any]`, of the other model; zero where it knows nothing.

    Returns:
      float `[num_items, D]`, and float `[num_items]`: 0 for an item of which nothing is known.
    """
    own = np.minimum(counts, MOST_COUNTED).astype(np.float64)
    cold = np.zeros([len(counts) - len(vectors), vectors.shape[1]], vectors.dtype)
    wanted = np.concatenate([vectors, cold])
    if known is None:
        return wanted, own
    there = turned_towards(known, wanted, own)
    is_known = np.any(known, axis=1)
    # As long as the others: turned into fewer dimensions they are shorter, and would count less.
    squares = (there[is_known] ** 2).sum(axis=1)
    if squares.any():
        there /= np.sqrt(squares.mean())
    weights = own + TRANSFER_PRIOR * is_known
    is_cold = np.arange(len(counts)) >= len(vectors)
    weights[is_cold] *= min(1.0, weights[~is_cold].sum() / max(weights[is_cold].sum(), 1e-9))
    return blended(wanted, there, own, TRANSFER_PRIOR), weights


def turned_towards(vectors: np.ndarray, others: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Turns all vectors at once, so that they lie as near to the others as they can.

    Only the turn is new, the orthogonal matrix `R` that minimises `sum_v w_v |x_v R - y_v|²`
    (Procrustes): what vectors say of one another stays. In fewer dimensions some of it is lost.

    Args:
      vectors: float `[V, D]`, the x.
      others: float `[V, E]`, the y.
      weights: `[V]`, the w.

    Returns:
      float `[V, E]`.
    """
    left, _, right = np.linalg.svd(
        vectors.T @ (weights[:, np.newaxis] * others), full_matrices=False
    )
    return vectors @ (left @ right)
