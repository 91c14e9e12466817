"""Where item vectors start: co-occurrence, content, and what both say of one item."""

import numpy as np

from bivrec_tf.co_occurrence import MOST_COUNTED


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


def turned_towards(
    vectors: np.ndarray, content_vectors: np.ndarray, counts: np.ndarray
) -> np.ndarray:
    """Turns all vectors at once, so that they lie as near to the content vectors as they can.

    Only the turn is new, the orthogonal matrix `R` that minimises `sum_v n_v |x_v R - c_v|²`
    (Procrustes): what vectors say of one another stays.

    Args:
      vectors: float `[V, D]`, the x.
      content_vectors: float `[V, D]`, the c; zero where there is no content.
      counts: `[V]`, training interactions: items with more, up to `MOST_COUNTED`, weigh more.
    """
    weights = np.minimum(counts, MOST_COUNTED)[:, np.newaxis]
    left, _, right = np.linalg.svd(vectors.T @ (weights * content_vectors))
    return vectors @ (left @ right)
