"""Losses against independent NumPy versions, plain autodiff and finite differences."""

import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from hypothesis import given, settings
from hypothesis import strategies as st

from bivrec_tf.losses import (
    AllocationBalance,
    CatalogueSoftmax,
    FusedViewsSoftmax,
    InterestAllocation,
    SampledSoftmax,
    SemanticSimilarity,
)
from bivrec_tf.losses.semantic_similarity import info_nce


def softmax(logits, axis):
    shifted = np.exp(logits - logits.max(axis=axis, keepdims=True))
    return shifted / shifted.sum(axis=axis, keepdims=True)


def naive_catalogue_loss(queries, items, targets, readout):
    logits = tf.einsum("nkd,vd->nkv", queries, items)
    scores = (
        tf.reduce_max(logits, axis=1) if readout == "max" else tf.reduce_logsumexp(logits, axis=1)
    )
    return tf.reduce_mean(
        tf.nn.sparse_softmax_cross_entropy_with_logits(labels=targets, logits=scores)
    )


def ours_and_naive(loss, queries, table, targets, upstream=1.0):
    """Value, and gradients of queries and items: of a loss, and of the naive one of its readout."""
    results = []
    for compute in (loss, lambda *of: naive_catalogue_loss(*of, loss.readout)):
        with tf.GradientTape() as tape:
            tape.watch([queries, table])
            value = upstream * compute(queries, table, targets)
        results.append([value, *tape.gradient(value, [queries, table])])
    return results


@settings(deadline=None, max_examples=20)
@given(
    rows=st.integers(1, 9),
    interests=st.integers(1, 4),
    items=st.integers(2, 12),
    chunk=st.one_of(st.none(), st.integers(1, 10)),
    readout=st.sampled_from(["max", "logsumexp"]),
    seed=st.integers(0, 1000),
)
def test_chunked_softmax_has_the_value_and_gradient_of_the_plain_one(
    rows, interests, items, chunk, readout, seed
):
    rng = np.random.default_rng(seed)
    queries = tf.constant(rng.normal(size=[rows, interests, 5]), tf.float32)
    table = tf.constant(rng.normal(size=[items, 5]), tf.float32)
    targets = tf.constant(rng.integers(0, items, size=rows), tf.int32)
    loss = CatalogueSoftmax(readout, chunk)
    results = ours_and_naive(loss, queries, table, targets, upstream=3.0)
    for fused, plain in zip(*results, strict=True):
        np.testing.assert_allclose(fused, plain, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("apart", [1.0, 30.0, 300.0])
def test_mixture_holds_where_the_probability_of_a_target_underflows(apart, dtype):
    """A target far below the highest score, under interests as far apart: neither NaN nor 0."""
    queries = tf.constant([[[1.0, 0.0], [0.0, 1.0]], [[0.0, 1.0], [0.0, 0.5]]])
    table = apart * tf.constant([[2.0, -1.0], [-1.0, -1.5], [0.5, 1.0], [-2.0, 2.0]])
    targets = tf.constant([1, 1])
    lowest = tf.reduce_min(tf.nn.softmax(tf.einsum("nkd,vd->nkv", queries, table))[:, :, 1])
    assert (float(lowest) < 1e-37) == (apart > 1.0)
    loss = CatalogueSoftmax("logsumexp", dtype=dtype)
    results = ours_and_naive(loss, queries, table, targets)
    assert float(results[1][0]) > 0.5 * apart
    rough = 5e-4 if dtype == "float32" else 2e-2
    # Loss and gradient of queries grow with the vectors of items, that of items does not.
    for scale, fused, plain in zip((apart, apart, 1.0), *results, strict=True):
        np.testing.assert_allclose(fused, plain, rtol=rough, atol=rough * scale)


@pytest.mark.parametrize("score", [-3.0, -90.0, -1000.0, 100.0, 1000.0])
def test_scores_of_any_size_have_their_softmax(score):
    """Sums of exponentials of these scores are no float32, but for the first."""
    queries = tf.constant([[[1.0, 0.0], [1.0, 0.1]], [[1.0, 0.2], [1.0, 0.0]]])
    table = tf.constant([[score, 0.0], [score, 1.0], [score, -3.0]])
    targets = tf.constant([1, 2])
    loss = CatalogueSoftmax("logsumexp")
    results = ours_and_naive(loss, queries, table, targets)
    for scale, fused, plain in zip((1.0, abs(score), 1.0), *results, strict=True):
        np.testing.assert_allclose(fused, plain, rtol=1e-4, atol=1e-4 * scale)


def fused_and_plain(queries, items, targets, weights, chunk=None):
    """Value, losses and gradients of both views' losses and their common one, in two ways."""

    def plain():
        both = naive_catalogue_loss(
            0.5 * tf.concat(queries, axis=2), tf.concat(items, axis=1), targets, "logsumexp"
        )
        each = [
            naive_catalogue_loss(q, v, targets, "logsumexp")
            for q, v in zip(queries, items, strict=True)
        ]
        return tf.tensordot(tf.stack([*each, both]), tf.constant(weights), 1), [*each, both]

    results = []
    for compute in (lambda: FusedViewsSoftmax(chunk)(queries, items, targets, weights), plain):
        with tf.GradientTape() as tape:
            tape.watch([*queries, *items])
            total, losses = compute()
            value = 3.0 * total
        results.append([value, tf.stack(losses), *tape.gradient(value, [*queries, *items])])
    return results


@settings(deadline=None, max_examples=20)
@given(
    rows=st.integers(0, 9),
    interests=st.integers(1, 4),
    items=st.integers(2, 12),
    chunk=st.one_of(st.none(), st.integers(1, 10)),
    weights=st.tuples(*[st.floats(0.125, 2.0)] * 3),
    seed=st.integers(0, 1000),
)
def test_fused_softmaxes_have_values_and_gradients_of_three_plain_ones(
    rows, interests, items, chunk, weights, seed
):
    rng = np.random.default_rng(seed)
    # Views may have vectors of different lengths.
    queries = [tf.constant(rng.normal(size=[rows, interests, d]), tf.float32) for d in (5, 3)]
    tables = [tf.constant(rng.normal(size=[items, d]), tf.float32) for d in (5, 3)]
    targets = tf.constant(rng.integers(0, items, size=rows), tf.int32)
    fused, plain = fused_and_plain(queries, tables, targets, weights, chunk)
    if not rows:
        plain = [tf.zeros_like(value) for value in plain]
    for ours, expected in zip(fused, plain, strict=True):
        np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("first", "second"),
    [(1.0, 1.0), (30.0, -30.0), (-90.0, 3.0), (100.0, -100.0), (1000.0, -1000.0), (400.0, 400.0)],
)
def test_fused_softmaxes_hold_where_views_disagree_beyond_what_float32_sums(first, second):
    """What one view scores highest the other may score so low that their product is no float32."""
    rng = np.random.default_rng(0)
    queries = [tf.constant(1.0 + 0.1 * rng.random([3, 2, 2]), tf.float32) for _ in range(2)]
    apart = tf.constant([[1.0, 0.2], [0.5, -0.3], [-1.0, 0.1], [-0.2, 0.4]])
    tables = [scale * apart for scale in (first, second)]
    targets = tf.constant([0, 1, 3])
    fused, plain = fused_and_plain(queries, tables, targets, (1.0, 0.7, 0.4))
    size = max(abs(first), abs(second))
    for scale, ours, expected in zip((size, size, size, size, 1.0, 1.0), fused, plain, strict=True):
        assert np.all(np.isfinite(ours))
        np.testing.assert_allclose(ours, expected, rtol=5e-4, atol=5e-4 * scale)


@pytest.mark.parametrize(
    ("scores", "weights"),
    [
        (([-120.0, 0.25], [60.0, -59.6]), (1.0, 1.0, 1.0)),
        (([-120.0, 1.0], [60.0, -59.0]), (1.0, 1.0, 3.0)),
        (([-115.0] * 50 + [-120.0, 3.0], [60.0] * 51 + [-59.0]), (1.0, 1.0, 1.0)),
    ],
)
def test_a_common_sum_that_lost_an_item_is_done_again(scores, weights):
    """A root that float32 has as 0 under another of e^30: neither NaN nor a loss below zero."""
    queries = [tf.ones([1, 1, 1])] * 2
    tables = [tf.constant(of)[:, tf.newaxis] for of in scores]
    fused, plain = fused_and_plain(queries, tables, tf.constant([0]), weights)
    assert float(plain[0]) > 0
    for ours, expected in zip(fused, plain, strict=True):
        np.testing.assert_allclose(ours, expected, rtol=2e-4, atol=2e-3)


def test_many_small_probabilities_add_up_in_bfloat16():
    """As of a catalogue of thousands: a sum in bfloat16 itself would stop at 256 equal terms."""
    rng = np.random.default_rng(0)
    queries = tf.constant(rng.normal(size=[16, 2, 8]), tf.float32)
    table = tf.constant(0.3 * rng.normal(size=[5000, 8]), tf.float32)
    targets = tf.constant(rng.integers(0, 5000, size=16), tf.int32)
    exact = float(naive_catalogue_loss(queries, table, targets, "logsumexp"))
    rounded = float(CatalogueSoftmax("logsumexp", dtype="bfloat16")(queries, table, targets))
    assert rounded == pytest.approx(exact, abs=0.01)


def test_a_step_without_targets_has_no_loss_and_no_gradient():
    queries, items = tf.zeros([0, 4, 5]), tf.ones([7, 5])
    with tf.GradientTape() as tape:
        tape.watch(items)
        loss = CatalogueSoftmax()(queries, items, tf.zeros([0], tf.int32))
    assert float(loss) == 0.0
    assert not np.any(tape.gradient(loss, items))


def test_sampled_softmax_learns_the_distribution_of_targets_despite_in_batch_negatives():
    """Free scores must end at the log of the targets' distribution, as under the full softmax.

    Without the log-Q correction popular items, often negatives of the batch, end far too low.
    """
    rng = np.random.default_rng(0)
    popularity = softmax(rng.normal(size=12) * 1.5, 0).astype(np.float32)
    scores = tf.Variable(tf.zeros([12, 1]))
    optimizer = tf_keras.optimizers.Adam(0.05)
    loss = SampledSoftmax(64)
    tf.random.set_seed(0)

    @tf.function
    def train(targets):
        with tf.GradientTape() as tape:
            value = loss(tf.ones([256, 1, 1]), scores, targets, tf.constant(popularity))
        optimizer.apply_gradients([(tape.gradient(value, scores), scores)])

    average = np.zeros([12, 1])
    for step in range(600):
        train(tf.constant(rng.choice(12, size=256, p=popularity), tf.int32))
        if step >= 400:
            average += scores.numpy() / 200
    learned = softmax(average[:, 0], 0)
    assert 0.5 * np.abs(learned - popularity).sum() < 0.05


@pytest.mark.parametrize("temperature", [0.5, 0.1, 0.01])
def test_info_nce_of_aligned_distinct_vectors_falls_to_zero_with_temperature(temperature):
    vectors = tf.eye(6)
    loss = float(info_nce(vectors, vectors, tf.range(6), temperature))
    assert loss == pytest.approx(np.log(1 + 5 * np.exp(-1 / temperature)), abs=1e-5)


def naive_info_nce(left, right, users, temperature):
    total = 0.0
    for i in range(len(users)):
        for a, b in ((left, right), (right, left)):
            others = [j for j in range(len(users)) if j == i or users[j] != users[i]]
            logits = np.array([a[i] @ b[j] for j in others]) / temperature
            positive = a[i] @ b[i] / temperature
            total += 0.5 * (np.log(np.exp(logits).sum()) - positive)
    return total / len(users)


def test_info_nce_matches_loops_and_leaves_out_other_rows_of_the_same_user():
    rng = np.random.default_rng(1)
    left, right = rng.normal(size=[2, 5, 4])
    users = np.array([1, 2, 1, 3, 4])
    value = info_nce(tf.constant(left), tf.constant(right), tf.constant(users), 0.7)
    assert float(value) == pytest.approx(naive_info_nce(left, right, users, 0.7), rel=1e-6)


def test_gradient_of_info_nce_matches_finite_differences():
    rng = np.random.default_rng(2)
    left, right = rng.normal(size=[2, 4, 3])
    users = np.arange(4)
    with tf.GradientTape() as tape:
        variable = tf.constant(left)
        tape.watch(variable)
        value = info_nce(variable, tf.constant(right), tf.constant(users), 0.3)
    gradient = tape.gradient(value, variable).numpy()
    for index in np.ndindex(*left.shape):
        step = np.zeros_like(left)
        step[index] = 1e-5
        numeric = (
            naive_info_nce(left + step, right, users, 0.3)
            - naive_info_nce(left - step, right, users, 0.3)
        ) / 2e-5
        assert gradient[index] == pytest.approx(numeric, abs=1e-6)


def test_semantic_similarity_learns_its_heads_and_temperature():
    layer = SemanticSimilarity()
    z = tf.random.stateless_normal([5, 3, 8], seed=[1, 2])
    with tf.GradientTape() as tape:
        loss = layer(z, z[:, ::-1] * 2.0 + 0.1, tf.range(5))
    assert all(g is not None for g in tape.gradient(loss, layer.trainable_variables))
    assert len(layer.trainable_variables) == 3
    assert float(layer.temperature()) == pytest.approx(0.07, rel=1e-5)


def random_allocations(seed, tokens=4):
    rng = np.random.default_rng(seed)
    left, right = softmax(rng.normal(size=[2, 3, 2, tokens]) * 2, axis=2).astype(np.float32)
    mask = rng.random([3, tokens]) > 0.3
    return left * mask[:, None], right * mask[:, None], mask


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 10_000))
def test_tied_allocation_loss_is_the_mean_jensen_shannon_divergence(seed):
    left, right, mask = random_allocations(seed)
    expected = []
    for b, t in zip(*np.nonzero(mask), strict=True):
        p, q = left[b, :, t].astype(float), right[b, :, t].astype(float)
        m = (p + q) / 2
        expected.append(0.5 * (p * np.log(p / m)).sum() + 0.5 * (q * np.log(q / m)).sum())
    value = float(InterestAllocation("tied")(left, right, mask))
    assert value == pytest.approx(np.mean(expected) if expected else 0.0, abs=1e-5)


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 10_000))
def test_co_assignment_loss_does_not_care_how_interests_are_numbered(seed):
    left, right, mask = random_allocations(seed)
    loss = InterestAllocation("co_assignment")
    value = float(loss(left, right, mask))
    assert value == pytest.approx(float(loss(left, right[:, ::-1], mask)), abs=1e-6)
    assert float(loss(left, left[:, ::-1], mask)) == pytest.approx(0.0, abs=1e-6)
    pairs = [
        (left[b, :, s] @ left[b, :, t] - right[b, :, s] @ right[b, :, t]) ** 2
        for b in range(3)
        for s in range(4)
        for t in range(4)
        if mask[b, s] and mask[b, t]
    ]
    assert value == pytest.approx(np.mean(pairs) if pairs else 0.0, abs=1e-5)


def test_balance_is_zero_when_interests_share_alike_and_log_k_in_a_collapse():
    mask = np.ones([2, 4], bool)
    alike = np.full([2, 4, 4], 0.25, np.float32)
    collapsed = np.zeros([2, 4, 4], np.float32)
    collapsed[:, 1] = 1.0
    assert float(AllocationBalance()(alike, mask)) == pytest.approx(0.0, abs=1e-5)
    assert float(AllocationBalance()(collapsed, mask)) == pytest.approx(np.log(4), abs=1e-5)
