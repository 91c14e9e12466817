"""Greedy re-ranking of results by how unlike they are to those before them."""

from collections.abc import Sequence

import tensorflow as tf

POOL = 4
"""So many times the wanted results are candidates."""


def diversified(
    scores: tf.Tensor,
    interest: tf.Tensor,
    vectors: Sequence[tf.Tensor],
    k: tf.Tensor,
    diversity: tf.Tensor,
) -> tf.Tensor:
    """Chooses k of m candidates, one after the other, by score and by novelty.

    A candidate's gain is `(1 - diversity) r + diversity (u + o) / 2`: `r` is its score, scaled to
    [0, 1] over the candidates; `u = 1 - max cosine` to what was chosen, the mean over views, at
    most 1; `o` is the share of what was chosen that another interest found. As in ComiRec's
    controllable factor, the sum over a list is what greedy choice approximates, with the
    interest in the place of a category. At `diversity` 0 candidates keep their order.

    Args:
      scores: float `[n, m]`, best first; minus infinity or the dtype's minimum where there is no
        candidate. Those are chosen last.
      interest: int32 `[n, m]`, the interest that found each.
      vectors: float `[n, m, D]`, of every view.
      k: int32 scalar, at most m.
      diversity: float scalar in [0, 1].

    Returns:
      int32 `[n, k]`, columns of the candidates, in the order of choice.

    Reference: Cen et al., *Controllable Multi-Interest Framework for Recommendation*, KDD 2020,
    section 3.4; Carbonell and Goldstein, *The Use of MMR*, SIGIR 1998.
    """
    count, pool = tf.shape(scores)[0], tf.shape(scores)[1]
    is_candidate = scores > scores.dtype.min
    lowest = tf.reduce_min(tf.where(is_candidate, scores, scores.dtype.max), axis=1, keepdims=True)
    span = tf.reduce_max(scores, axis=1, keepdims=True) - lowest
    relevance = tf.where(span > 0, (scores - lowest) / tf.maximum(span, 1e-30), 1.0)
    # Below any gain, and in order among themselves.
    relevance = tf.where(is_candidate, relevance, -4.0)
    units = [tf.math.l2_normalize(each, axis=2) for each in vectors]
    columns = tf.range(pool)[tf.newaxis]

    def choose(step, chosen, closest, same, is_open):
        novelty = tf.where(step > 0, tf.minimum(1.0 - closest, 1.0), 0.0)
        others = 1.0 - same / tf.cast(tf.maximum(step, 1), tf.float32)
        others = tf.where(step > 0, others, 0.0)
        gain = (1.0 - diversity) * relevance + diversity * 0.5 * (novelty + others)
        # All chosen at once have the best score first: novelty has nothing to be held against yet.
        gain = tf.where(is_candidate, tf.where(step > 0, gain, relevance), relevance)
        best = tf.argmax(tf.where(is_open, gain, -8.0), axis=1, output_type=tf.int32)
        alike = tf.add_n(
            [tf.einsum("nd,nmd->nm", tf.gather(unit, best, batch_dims=1), unit) for unit in units]
        ) / float(len(units))
        closest = tf.where(step > 0, tf.maximum(closest, alike), alike)
        of_best = tf.gather(interest, best, batch_dims=1)[:, tf.newaxis]
        same += tf.cast(interest == of_best, tf.float32)
        is_open &= columns != best[:, tf.newaxis]
        return step + 1, chosen.write(step, best), closest, same, is_open

    nothing = tf.zeros([count, pool])
    _, chosen, *_ = tf.while_loop(
        lambda step, *_: step < k,
        choose,
        (
            tf.constant(0),
            tf.TensorArray(tf.int32, size=k, element_shape=[None]),
            nothing,
            nothing,
            tf.ones([count, pool], tf.bool),
        ),
        parallel_iterations=1,
    )
    return tf.transpose(chosen.stack())
