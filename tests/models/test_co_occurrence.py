"""First item vectors against a naive count, and what training sees of them."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from bivrec_tf import co_occurrence
from bivrec_tf.catalogue import ItemCatalogue, ItemFeatures
from bivrec_tf.co_occurrence import co_occurrence_vectors, content_kernels
from bivrec_tf.config import ModelConfig
from bivrec_tf.models import BiVRec


def naive_information(histories, num_items, window):
    """The positive pointwise mutual information, pair by pair."""
    counts = np.zeros([num_items, num_items])
    for history in histories:
        items = [item for item in history if item]
        for i, earlier in enumerate(items):
            for j in range(i + 1, min(i + window, len(items) - 1) + 1):
                counts[earlier - 1, items[j] - 1] += (j - i) ** -0.5
                counts[items[j] - 1, earlier - 1] += (j - i) ** -0.5
    degrees = counts.sum(axis=1)
    context = np.maximum(degrees, 1e-12) ** 0.75
    context /= context.sum()
    information = np.zeros_like(counts)
    for u in range(num_items):
        for v in range(num_items):
            if counts[u, v]:
                information[u, v] = max(0, np.log(counts[u, v] / (degrees[u] * context[v])))
    return information


def groups(users=200, items=40, of_a_group=10, seed=0):
    """Users who stay in one of four groups of items."""
    generator = np.random.default_rng(seed)
    rows = []
    for _ in range(users):
        first = generator.integers(items // of_a_group) * of_a_group + 1
        rows.append([0, 0, *(first + generator.permutation(of_a_group)[:8])])
    return np.array(rows)


def targets(rows):
    """A batch of windows in which every item is a target."""
    rows = np.asarray(rows)
    return rows, rows > 0


histories = st.lists(
    st.lists(st.integers(1, 9), min_size=1, max_size=7).map(lambda h: [0] * (7 - len(h)) + h),
    min_size=1,
    max_size=8,
)


@settings(max_examples=60, deadline=None)
@given(histories, st.integers(1, 8), st.integers(1, 3))
def test_products_of_full_vectors_are_the_information_of_a_naive_count(rows, window, batches):
    """With as many dimensions as items, `U S U'` is the matrix itself wherever it is `U S V'`."""
    expected = naive_information(rows, 9, window)
    parts = np.array_split(np.array(rows), batches)
    found = co_occurrence._count([targets(part) for part in parts], 9, window)
    found = co_occurrence._positive_information(found).toarray()
    np.testing.assert_allclose(found, expected, atol=2e-3)
    vectors = co_occurrence._factorise(co_occurrence.sparse.csr_matrix(expected), 9, 0)
    left, strengths, _ = np.linalg.svd(expected)
    np.testing.assert_allclose(vectors @ vectors.T, left * strengths @ left.T, atol=1e-8)


def test_a_truncated_decomposition_is_the_best_of_its_rank():
    rows = groups(seed=1)
    expected = naive_information(rows, 40, co_occurrence.WINDOW)
    vectors = co_occurrence._factorise(co_occurrence.sparse.csr_matrix(expected), 6, 0)
    left, strengths, _ = np.linalg.svd(expected)
    best = (left[:, :6] * strengths[:6]) @ left[:, :6].T
    np.testing.assert_allclose(vectors @ vectors.T, best, atol=1e-6)


def test_items_that_stand_together_have_like_vectors():
    vectors = co_occurrence_vectors([targets(groups())], 40, 8)
    assert vectors.shape == (40, 8) and vectors.dtype == np.float32
    assert np.mean(np.sum(vectors**2, axis=1)) == pytest.approx(1.0, rel=1e-4)
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    cosine = unit @ unit.T
    group = np.arange(40) // 10
    same = (group[:, None] == group) & ~np.eye(40, dtype=bool)
    assert cosine[same].mean() > 0.8 > 0.3 > cosine[group[:, None] != group].mean()


def test_batches_and_their_order_do_not_matter(monkeypatch):
    rows = groups()
    whole = co_occurrence_vectors([targets(rows)], 40, 8, seed=3)
    monkeypatch.setattr(co_occurrence, "_PAIRS_AT_ONCE", 50)
    parts = [targets(part) for part in np.array_split(rows[::-1], 9)]
    np.testing.assert_array_equal(co_occurrence_vectors(parts, 40, 8, seed=3), whole)
    assert np.abs(co_occurrence_vectors([targets(rows)], 40, 8, seed=4) - whole).max() > 0.1


def test_an_item_without_neighbours_has_a_vector_of_its_own():
    vectors = co_occurrence_vectors([targets(groups())], 43, 8)
    lengths = np.linalg.norm(vectors, axis=1)
    assert np.all(lengths > 0.1) and np.all(np.isfinite(vectors))
    assert np.abs(vectors[40] - vectors[41]).max() > 0.01


@pytest.mark.parametrize("rows", [np.zeros([0, 4], int), np.array([[0, 0, 3]])])
def test_nothing_to_count_leaves_random_vectors(rows):
    for items in (5, 60):
        vectors = co_occurrence_vectors([targets(rows)], items, 4)
        assert np.all(np.isfinite(vectors)) and np.linalg.matrix_rank(vectors) == 4


def test_windows_that_overlap_count_a_pair_once():
    whole = co_occurrence._count([targets([[1, 2, 3, 4, 5, 6]])], 6, 3)
    rows = np.array([[0, 0, 1, 2, 3, 4], [2, 3, 4, 5, 6, 0]])
    first_time = np.array([[False] * 2 + [True] * 4, [False] * 3 + [True] * 2 + [False]])
    parts = co_occurrence._count([(rows, first_time)], 6, 3)
    np.testing.assert_array_equal(parts.toarray(), whole.toarray())


def test_kernels_predict_vectors_from_content():
    """Content that determines the vectors gives them back, up to one scale."""
    generator = np.random.default_rng(0)
    features = generator.normal(size=[300, 12]).astype(np.float32)
    vectors = features @ generator.normal(size=[12, 8])
    present = np.arange(300) % 5 > 0
    features[~present] = 1e6
    kernel = content_kernels(
        {"text": features}, {"text": present}, vectors, np.full(300, 7), ridge=1e-4
    )["text"]
    predicted = features[present] @ kernel
    assert predicted.std() == pytest.approx(1.0, rel=1e-3)
    scale = (predicted * vectors[present]).sum() / (vectors[present] ** 2).sum()
    np.testing.assert_allclose(predicted, scale * vectors[present], atol=0.01)


def test_a_modality_that_no_item_has_gets_no_kernel():
    none = np.zeros(4, bool)
    assert content_kernels({"image": np.ones([4, 3])}, {"image": none}, np.ones([4, 2]), none) == {}


def apart(vectors):
    """How much more alike the first half of the items are to each other than to the others."""
    unit = tf.math.l2_normalize(vectors, axis=1)
    cosine = tf.matmul(unit, unit, transpose_b=True).numpy()
    half = len(cosine) // 2
    return cosine[:half, :half].mean() - cosine[:half, half:].mean()


def test_both_views_start_from_neighbourhood():
    """Before any training, items of one group are alike in the id view, and also in the other
    where one feature of twenty tells the groups; at random they are not."""
    generator = np.random.default_rng(0)
    text = generator.normal(size=[120, 20]).astype(np.float32)
    text[:, 7] += np.where(np.arange(120) < 60, -3.0, 3.0)
    text[119] = text[3]
    items = [ItemFeatures(str(row), {"text": text[row]}) for row in range(120)]
    catalogue = ItemCatalogue.build([str(row) for row in range(120)], [5] * 120, items)
    model = BiVRec(ModelConfig(dimension=8, max_history=6), catalogue)
    model.build_variables()
    before = {view: apart(table[1:]) for view, table in model.item_tables().items()}
    first = np.arange(400)[:, np.newaxis] % 2 * 60
    rows = first + generator.integers(1, 61, size=[400, 6])
    model.start_from(co_occurrence_vectors([targets(rows)], 120, 8))
    tables = model.item_tables()
    np.testing.assert_allclose(tables["id"][1:], co_occurrence_vectors([targets(rows)], 120, 8))
    for view, table in tables.items():
        assert apart(table[1:]) > before[view] + 0.3
    # Names of weights do not depend on what was called first.
    unbuilt = BiVRec(ModelConfig(dimension=8, max_history=6), catalogue)
    unbuilt.start_from(tables["id"][1:].numpy())
    assert unbuilt.named_variables().keys() == model.named_variables().keys()
    # An id vector moves from its neighbourhood towards its content, the further the less is known.
    model.start_from(co_occurrence_vectors([targets(rows)], 120, 8), content_prior=15.0)
    blended = 0.25 * tables["id"] + 0.75 * tables["mm"]
    np.testing.assert_allclose(model.item_tables()["id"], blended, rtol=1e-4, atol=1e-5)
    # Equal content is an equal vector, whatever stood near it.
    np.testing.assert_array_equal(tables["mm"][4], tables["mm"][120])
