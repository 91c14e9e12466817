"""Greedy diversification against a loop in NumPy."""

import numpy as np
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from bivrec_tf.retrieval.diversity import diversified


def naive(scores, interest, vectors, k, diversity):
    """One list: the candidates in the order in which they are chosen."""
    units = [v / np.maximum(np.linalg.norm(v, axis=1, keepdims=True), 1e-6) for v in vectors]
    there = scores > np.finfo(np.float32).min
    lowest, highest = scores[there].min(initial=np.inf), scores.max()
    chosen = []
    while len(chosen) < k:
        best, best_gain = None, -np.inf
        for item in range(len(scores)):
            if item in chosen:
                continue
            spread = highest - lowest
            gain = relevance = -4.0
            if there[item]:
                gain = relevance = (scores[item] - lowest) / spread if spread > 0 else 1.0
            if chosen and there[item]:
                alike = max(np.mean([u[item] @ u[other] for u in units]) for other in chosen)
                others = np.mean([interest[other] != interest[item] for other in chosen])
                novelty = (min(1 - alike, 1.0) + others) / 2
                gain = (1 - diversity) * relevance + diversity * novelty
            if gain > best_gain + 1e-6:
                best, best_gain = item, gain
        chosen.append(best)
    return chosen


@settings(deadline=None, max_examples=25)
@given(
    seed=st.integers(0, 10_000),
    pool=st.integers(1, 12),
    views=st.integers(1, 2),
    diversity=st.sampled_from([0.0, 0.3, 0.8, 1.0]),
    missing=st.integers(0, 3),
    data=st.data(),
)
def test_choices_are_those_of_a_loop(seed, pool, views, diversity, missing, data):
    k = data.draw(st.integers(1, pool))
    generator = np.random.default_rng(seed)
    scores = -np.sort(-generator.normal(size=[3, pool])).astype(np.float32)
    scores[:, max(1, pool - missing) :] = np.finfo(np.float32).min
    interest = generator.integers(0, 3, size=[3, pool]).astype(np.int32)
    vectors = [generator.normal(size=[3, pool, 4]).astype(np.float32) for _ in range(views)]
    found = diversified(
        tf.constant(scores), tf.constant(interest), vectors, tf.constant(k), tf.constant(diversity)
    ).numpy()
    for row in range(3):
        expected = naive(scores[row], interest[row], [v[row] for v in vectors], k, diversity)
        assert found[row].tolist() == expected
        if diversity == 0:
            assert expected == list(range(k))
