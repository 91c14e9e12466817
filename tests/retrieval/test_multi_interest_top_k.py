"""The exact index against a full sort in NumPy."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from bivrec_tf.retrieval import MultiInterestTopK

LOWEST = tf.float32.min


def case(seed, rows, queries, interests, whole_numbers):
    """Random tables and queries; whole numbers give exact scores and plenty of ties."""
    rng = np.random.default_rng(seed)

    def draw(*shape):
        values = rng.integers(-2, 3, size=shape) if whole_numbers else rng.normal(size=shape)
        return values.astype(np.float32)

    return {
        "tables": {view: draw(rows, 4) for view in ("id", "mm")},
        "queries": {view: draw(queries, interests, 4) for view in ("id", "mm")},
        "warm": rng.random(rows) < 0.7,
        "offsets": draw(rows),
        "excluded": rng.integers(-2, rows, size=[queries, int(rng.integers(0, 4))]).astype(
            np.int32
        ),
    }


def naive_scores(tables, queries, warm, offsets, id_weight):
    """Scores of every item for every query, float64 `[n, rows]`, and of every interest."""
    by_interest = {v: np.einsum("nkd,vd->nkv", queries[v], tables[v]).astype(float) for v in tables}
    if len(tables) == 1:
        only = next(iter(by_interest.values()))
        return only.max(axis=1) + offsets, only
    weight = np.where(warm, id_weight, 0.0)
    best = {view: scores.max(axis=1) for view, scores in by_interest.items()}
    mixed = weight * by_interest["id"] + (1 - weight) * by_interest["mm"]
    return weight * best["id"] + (1 - weight) * best["mm"] + offsets, mixed


def naive_order(scores, forbidden):
    """Rows that may be recommended, best first, the lower of equals first."""
    return [r for r in np.lexsort([np.arange(len(scores)), -scores]) if r not in forbidden]


@settings(deadline=None, max_examples=25)
@given(
    seed=st.integers(0, 100_000),
    rows=st.integers(1, 23),
    queries=st.integers(1, 4),
    interests=st.integers(1, 3),
    block_size=st.integers(1, 25),
    k=st.integers(1, 25),
    id_weight=st.sampled_from([0.0, 0.25, 0.5, 1.0]),
    has_padding=st.booleans(),
    views=st.sampled_from([("id", "mm"), ("id",), ("mm",)]),
)
def test_search_is_a_full_sort(
    seed, rows, queries, interests, block_size, k, id_weight, has_padding, views
):
    given_case = case(seed, rows, queries, interests, whole_numbers=True)
    tables = {view: given_case["tables"][view] for view in views}
    asked = {view: given_case["queries"][view] for view in views}
    warm, offsets, excluded = (given_case[name] for name in ("warm", "offsets", "excluded"))
    index = MultiInterestTopK(block_size=block_size).index(
        tables, warm=warm, offsets=offsets, id_weight=0.75, has_padding=has_padding
    )
    found = index.search(asked, excluded, k=k, id_weight=id_weight)
    scores, by_interest = naive_scores(tables, asked, warm, offsets, id_weight)

    assert found.rows.shape == (queries, min(k, rows))
    view_scores, interest = found.view_scores.numpy(), found.interest.numpy()
    for n in range(queries):
        forbidden = {*excluded[n].tolist(), *([0] if has_padding else [])}
        order = naive_order(scores[n], forbidden)[:k]
        empty = min(k, rows) - len(order)
        np.testing.assert_array_equal(found.rows[n], order + [0] * empty)
        expected = [*scores[n, order], *[LOWEST] * empty]
        np.testing.assert_allclose(found.scores[n], expected, rtol=1e-6)
        for place, row in enumerate(order):
            assert interest[n, place] == by_interest[n, :, row].argmax()
            for column, view in enumerate(("id", "mm")):
                absent = view not in views or (view == "id" and not warm[row])
                score = 0 if absent else (asked[view][n] @ tables[view][row]).max()
                assert view_scores[n, place, column] == score


@settings(deadline=None, max_examples=12)
@given(
    seed=st.integers(0, 100_000),
    rows=st.integers(2, 20),
    block_size=st.integers(1, 21),
    whole_numbers=st.booleans(),
)
def test_ranks_are_the_places_of_a_search_and_of_a_full_sort(seed, rows, block_size, whole_numbers):
    given_case = case(seed, rows, 3, 2, whole_numbers)
    # Twins: their ties must be broken alike even where scores are rounded.
    for table in given_case["tables"].values():
        table[rows // 2 :] = table[: rows - rows // 2]
    given_case["offsets"][:] = 0.0
    warm = np.ones(rows, bool)
    tables, queries, excluded = (given_case[name] for name in ("tables", "queries", "excluded"))
    index = MultiInterestTopK(block_size=block_size).index(tables, has_padding=True)
    targets = np.tile(np.arange(rows, dtype=np.int32), [3, 1])
    ranks = index.ranks(queries, targets, excluded).numpy()
    found = index.search(queries, excluded, k=rows).rows.numpy()
    scores, _ = naive_scores(tables, queries, warm, np.zeros(rows), 0.5)
    for n in range(3):
        assert ranks[n, 0] == 0
        results = [row for row in found[n] if row > 0]
        assert [ranks[n, row] for row in results] == list(range(1, len(results) + 1))
        if not whole_numbers:
            continue
        forbidden = {0, *excluded[n].tolist()}
        for row in range(1, rows):
            # A target is ranked even where it is excluded itself.
            assert ranks[n, row] == naive_order(scores[n], forbidden - {row}).index(row) + 1


@settings(deadline=None, max_examples=15)
@given(
    seed=st.integers(0, 100_000),
    rows=st.integers(2, 20),
    block_size=st.integers(1, 21),
    views=st.sampled_from([("id", "mm"), ("mm",)]),
)
def test_choices_that_share_products_rank_as_each_would_by_itself(seed, rows, block_size, views):
    given_case = case(seed, rows, 3, 2, whole_numbers=True)
    tables, queries = (
        {view: given_case[name][view] for view in views} for name in ("tables", "queries")
    )
    warm, excluded = given_case["warm"], given_case["excluded"]
    index = MultiInterestTopK(block_size=block_size).index(tables, warm=warm, has_padding=True)
    targets = np.random.default_rng(seed).integers(0, rows, [3, 2]).astype(np.int32)
    id_weights = np.array([0.0, 0.25, 1.0], np.float32)
    offsets = np.random.default_rng(seed).integers(-3, 4, [3, rows]).astype(np.float32)
    found = index.ranks_of_choices(queries, targets, id_weights, offsets, excluded).numpy()
    for choice, id_weight in enumerate(id_weights):
        scores, _ = naive_scores(tables, queries, warm, offsets[choice], id_weight)
        for n in range(3):
            forbidden = {0, *excluded[n].tolist()}
            for place, row in enumerate(targets[n].tolist()):
                expected = row and naive_order(scores[n], forbidden - {row}).index(row) + 1
                assert found[choice, n, place] == expected


@settings(deadline=None, max_examples=15)
@given(
    seed=st.integers(0, 100_000),
    rows=st.integers(257, 1500),
    k=st.integers(1, 4),
    block_size=st.sampled_from([None, 700, 257]),
    whole_numbers=st.booleans(),
)
def test_long_blocks_are_searched_by_groups_to_the_same_end(
    seed, rows, k, block_size, whole_numbers
):
    given_case = case(seed, rows, 3, 2, whole_numbers)
    tables, queries, excluded = (given_case[name] for name in ("tables", "queries", "excluded"))
    closed = np.random.default_rng(seed).random(rows) < 0.3
    index = MultiInterestTopK(block_size=block_size).index(tables, has_padding=True)
    found = index.search(queries, excluded, k=k, closed=closed)
    scores, _ = naive_scores(tables, queries, np.ones(rows, bool), np.zeros(rows), 0.5)
    for n in range(3):
        forbidden = {0, *excluded[n].tolist(), *np.flatnonzero(closed).tolist()}
        order = naive_order(scores[n], forbidden)[:k]
        np.testing.assert_allclose(found.scores[n], scores[n, order], rtol=1e-4, atol=1e-5)
        if whole_numbers:
            np.testing.assert_array_equal(found.rows[n], order)
        assert not set(found.rows[n].numpy()) & forbidden


def test_a_single_tensor_stands_for_the_id_view_and_a_vector_for_one_interest():
    table = np.random.default_rng(0).normal(size=[9, 3]).astype(np.float32)
    vectors = np.random.default_rng(1).normal(size=[2, 3]).astype(np.float32)
    index = MultiInterestTopK(k=4).index(table)
    scores, rows = index(vectors)
    expected = np.argsort(-(vectors @ table.T), axis=1)[:, :4]
    np.testing.assert_array_equal(rows, expected)
    np.testing.assert_allclose(scores, -np.sort(-(vectors @ table.T), axis=1)[:, :4], rtol=1e-5)
    again = MultiInterestTopK(k=4).index({"id": table}).search({"id": vectors[:, None]})
    np.testing.assert_array_equal(again.rows, expected)
    assert index.is_exact()


def test_identifiers_come_back_and_are_excluded_by_name():
    index = MultiInterestTopK(k=3).index(
        tf.constant([[9.0], [4.0], [3.0], [2.0], [1.0]]),
        tf.constant(["", "d", "c", "b", "a"]),
        has_padding=True,
    )
    _, names = index(tf.ones([1, 1, 1]))
    assert names.numpy().tolist() == [[b"d", b"c", b"b"]]
    exclusions = tf.constant([["c", "unknown", ""], ["d", "c", "b"], ["", "", ""]])
    scores, names = index.query_with_exclusions(tf.ones([3, 1, 1]), exclusions)
    assert names.numpy().tolist() == [[b"d", b"b", b"a"], [b"a", b"", b""], [b"d", b"c", b"b"]]
    assert scores.numpy()[1].tolist() == [1.0, LOWEST, LOWEST]


def test_without_identifiers_exclusions_are_rows():
    index = MultiInterestTopK(k=2).index(tf.constant([[1.0], [2.0], [3.0]]))
    _, rows = index.query_with_exclusions(tf.ones([1, 1, 1]), tf.constant([[2, -1]]))
    assert rows.numpy().tolist() == [[1, 0]]


def test_an_index_answers_with_its_own_weight_and_after_assign_with_its_new_tables():
    tables = {"id": tf.constant([[1.0], [0.0]]), "mm": tf.constant([[0.0], [1.0]])}
    ones = {view: tf.ones([1, 1, 1]) for view in tables}
    index = MultiInterestTopK(k=1).index(tables, id_weight=0.9)
    assert index.search(ones).rows.numpy().tolist() == [[0]]
    assert index.search(ones, id_weight=0.1).rows.numpy().tolist() == [[1]]
    index.assign({"id": tables["mm"], "mm": tables["id"]}, tf.zeros([2]))
    assert index.search(ones).rows.numpy().tolist() == [[1]]
    index.assign(tables, tf.constant([0.0, 5.0]))
    assert index.search(ones).scores.numpy().tolist() == [[pytest.approx(5.1)]]


def test_one_trace_serves_any_number_of_queries_exclusions_and_results():
    table = np.random.default_rng(0).normal(size=[11, 3]).astype(np.float32)
    index = MultiInterestTopK(block_size=4).index(table)

    @tf.function(
        input_signature=[
            tf.TensorSpec([None, None, 3]),
            tf.TensorSpec([None, None], tf.int32),
            tf.TensorSpec([], tf.int32),
        ]
    )
    def search(queries, excluded, k):
        return index.search(queries, excluded, k)

    for seed, (n, interests, width, k) in enumerate([(1, 1, 0, 1), (3, 2, 2, 20), (0, 1, 1, 3)]):
        rng = np.random.default_rng(seed)
        queries = rng.normal(size=[n, interests, 3]).astype(np.float32)
        excluded = rng.integers(0, 11, size=[n, width]).astype(np.int32)
        found = search(queries, excluded, k)
        eager = index.search(queries, excluded, k)
        assert found.rows.shape == (n, min(k, 11))
        np.testing.assert_array_equal(found.rows, eager.rows)
    assert search.experimental_get_tracing_count() == 1


@pytest.mark.parametrize(
    ("action", "message"),
    [
        (lambda: MultiInterestTopK().search(tf.ones([1, 1, 2])), r"the index is empty: call index"),
        (
            lambda: MultiInterestTopK().index({"text": tf.ones([2, 2])}),
            r"expected tables of the views \('id', 'mm'\), found \['text'\]",
        ),
        (lambda: MultiInterestTopK().index({}), r"expected tables of the views .*, found \[\]"),
        (
            lambda: MultiInterestTopK().index({"id": tf.ones([2, 2]), "mm": tf.ones([3, 2])}),
            r"expected tables of one length, found \[2, 3\]",
        ),
        (
            lambda: MultiInterestTopK().index(tf.ones([2, 2]), tf.constant(["a"])),
            r"expected 2 identifiers, found 1",
        ),
        (
            lambda: MultiInterestTopK().index(tf.ones([2, 2])).search({"mm": tf.ones([1, 1, 2])}),
            r"expected queries of the views \['id'\], found \['mm'\]",
        ),
    ],
)
def test_mistakes_are_named(action, message):
    with pytest.raises(ValueError, match=message):
        action()
