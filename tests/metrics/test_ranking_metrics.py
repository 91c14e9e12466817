"""Ranking metrics against their definitions in plain Python."""

import math

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from bivrec_tf.metrics import NDCG, CatalogueCoverage, HitRate, Recall, ReciprocalRank


def naive(kind, ranks, k):
    """The metric of one example whose targets have distinct `ranks` (0 is padding)."""
    ranks = [rank for rank in ranks if rank > 0]
    hits = [rank for rank in ranks if rank <= k]
    if kind is Recall:
        return len(hits) / len(ranks) if ranks else 0.0
    if kind is HitRate:
        return 1.0 if hits else 0.0
    if kind is ReciprocalRank:
        return max((1 / rank for rank in hits), default=0.0)
    ideal = sum(1 / math.log2(place + 1) for place in range(1, min(k, len(ranks)) + 1))
    return sum(1 / math.log2(rank + 1) for rank in hits) / ideal if ranks else 0.0


# Ranks of one example are distinct places of a ranking.
examples = st.lists(
    st.lists(st.integers(1, 60), min_size=1, max_size=8, unique=True), min_size=1, max_size=6
)
KINDS = pytest.mark.parametrize("kind", [Recall, NDCG, HitRate, ReciprocalRank])


def pad(ranks, width=9):
    return tf.constant([row + [0] * (width - len(row)) for row in ranks], tf.int32)


@KINDS
@settings(deadline=None, max_examples=40)
@given(ranks=examples, k=st.integers(1, 50))
def test_metric_is_its_definition(kind, ranks, k):
    values = kind(k).per_example(pad(ranks)).numpy()
    np.testing.assert_allclose(values, [naive(kind, row, k) for row in ranks], atol=1e-5)
    assert np.all(values >= 0) and np.all(values <= 1 + 1e-6)


@KINDS
@settings(deadline=None, max_examples=20)
@given(ranks=examples, k=st.integers(1, 30))
def test_padding_and_the_order_of_targets_do_not_matter(kind, ranks, k):
    values = kind(k).per_example(pad(ranks))
    shuffled = [[0] * (9 - len(row)) + row[::-1] for row in ranks]
    np.testing.assert_allclose(values, kind(k).per_example(tf.constant(shuffled)), atol=1e-6)


@pytest.mark.parametrize("kind", [Recall, HitRate, ReciprocalRank])
@settings(deadline=None, max_examples=20)
@given(ranks=examples, k=st.integers(1, 30))
def test_a_larger_k_never_lowers_a_metric(kind, ranks, k):
    smaller, larger = (kind(cut).per_example(pad(ranks)).numpy() for cut in (k, k + 7))
    assert np.all(larger >= smaller - 1e-6)


@settings(deadline=None, max_examples=20)
@given(rank=st.integers(1, 80), k=st.integers(1, 30))
def test_a_larger_k_never_lowers_the_ndcg_of_a_single_target(rank, k):
    smaller, larger = (float(NDCG(cut).per_example(tf.constant([[rank]]))[0]) for cut in (k, k + 7))
    assert larger >= smaller


def test_ndcg_is_one_for_an_ideal_ranking_and_not_for_one_hit_of_many():
    ideal = tf.constant([[3, 1, 2, 0], [2, 1, 4, 3]])
    np.testing.assert_allclose(NDCG(2).per_example(ideal), [1.0, 1.0], rtol=1e-6)
    # Dividing by the gain of the hits alone would make this 1.
    one_hit = NDCG(10).per_example(tf.constant([[1, 99, 98]]))
    np.testing.assert_allclose(one_hit, [1 / (1 + 1 / math.log2(3) + 0.5)], rtol=1e-6)


@KINDS
def test_targets_that_are_never_found_count_and_do_not_break_anything(kind):
    values = kind(10).per_example(tf.constant([[tf.int32.max, 1], [tf.int32.max, 0]]))
    expected = [naive(kind, [10**9, 1], 10), 0.0]
    np.testing.assert_allclose(values, expected, rtol=1e-6)


@KINDS
def test_a_metric_is_the_mean_over_examples_of_all_batches(kind):
    batches = [[[1, 5], [40]], [[2]], [[3, 11, 12], [9], [60]]]
    metric = kind(10)
    for ranks in batches:
        metric.update_state(pad(ranks))
    everything = [naive(kind, row, 10) for ranks in batches for row in ranks]
    assert float(metric.result()) == pytest.approx(np.mean(everything), abs=1e-6)
    metric.reset_state()
    metric.update_state(pad([[1], [60]]), sample_weight=tf.constant([3.0, 1.0]))
    assert float(metric.result()) == pytest.approx(0.75)
    again = kind.from_config(metric.get_config())
    assert (again.k, again.name) == (10, f"{kind.prefix}_at_10")


@settings(deadline=None, max_examples=20)
@given(
    batches=st.lists(
        st.lists(st.lists(st.integers(0, 9), min_size=4, max_size=4), min_size=1, max_size=4),
        min_size=1,
        max_size=3,
    ),
    k=st.integers(1, 4),
)
def test_coverage_is_the_share_of_items_that_anybody_was_recommended(batches, k):
    coverage = CatalogueCoverage(num_items=9, k=k)
    for rows in batches:
        coverage.update_state(tf.constant(rows, tf.int32))
    seen = {row for rows in batches for example in rows for row in example[:k]} - {0}
    assert float(coverage.result()) == pytest.approx(len(seen) / 9)
    again = CatalogueCoverage.from_config(coverage.get_config())
    assert (again.num_items, again.k, again.name) == (9, k, f"coverage_at_{k}")
