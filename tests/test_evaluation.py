"""Full ranking of a model against a naive one, calibration, and the popularity baseline."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from bivrec_tf import data
from bivrec_tf.catalogue import ItemCatalogue, ItemFeatures
from bivrec_tf.config import ModelConfig
from bivrec_tf.evaluation import RankingEvaluator, popularity_ranks
from bivrec_tf.models import BiVRec

NAMES = [f"t{row:02d}" for row in range(1, 16)]
NEVER_FOUND = tf.int32.max


@pytest.fixture(scope="module")
def model():
    rng = np.random.default_rng(0)
    items = [ItemFeatures(n, {"text": rng.normal(size=4)}) for n in [*NAMES, "x1", "x2", "x3"]]
    catalogue = ItemCatalogue.build(NAMES, range(15, 0, -1), items)
    # Scores of about 1, beside which the offsets of cold items weigh something.
    config = ModelConfig(dimension=8, num_interests=3, max_history=5, score_temperature=10.0)
    tf.random.set_seed(0)
    model = BiVRec(config, catalogue)
    model(tf.constant([[1]]))
    for variable in model.trainable_variables:
        variable.assign(rng.normal(size=variable.shape))
    return model


@pytest.fixture(scope="module")
def batches(model):
    rng = np.random.default_rng(1)
    names = [*model.catalogue.item_ids[1:], "unknown"]
    sequences = []
    for _ in range(100):
        drawn = rng.permutation(names).tolist()
        cut, targets = rng.integers(0, 7), rng.integers(1, 4)
        sequences.append(("u", drawn[:cut], drawn[cut : cut + targets]))
    lookup = data.ItemLookup(model.catalogue)
    return data.evaluation_batches(data.serialize_sequences(sequences), lookup, 80)


def naive_ranks(model, batch, id_weight, cold_offset, filter_seen):
    """Ranks of a batch by a full sort of scores from interests and item tables."""
    tables = model.item_tables()
    found = model.interests(batch["history"])
    warm = np.arange(model.num_rows) <= model.catalogue.num_trained
    best = {
        view: np.einsum("nkd,vd->nkv", found[view].vectors, tables[view]).max(axis=1)
        for view in tables
    }
    weight = np.where(warm, id_weight, 0.0)
    popularity = float(model.popularity_weight) * np.log(np.maximum(model.catalogue.counts, 1))
    offset = np.where(warm, popularity, cold_offset)
    scores = weight * best["id"] + (1 - weight) * best["mm"] + offset
    ranks = np.zeros(batch["target"].shape, np.int64)
    for n, targets in enumerate(batch["target"].numpy()):
        for place, target in enumerate(targets):
            if target == 0:
                continue
            seen = set(batch["history"].numpy()[n].tolist()) if filter_seen else set()
            rivals = [v for v in range(1, model.num_rows) if v not in seen and v != target]
            ahead = sum(scores[n, v] > scores[n, target] for v in rivals)
            if not batch["history"].numpy()[n].any():
                # The list of the popular, whose order is that of the rows.
                ahead = target - 1
            ranks[n, place] = NEVER_FOUND if target < 0 else ahead + 1
    return ranks


@pytest.mark.parametrize("filter_seen", [True, False])
def test_ranks_are_those_of_a_full_sort(model, batches, filter_seen):
    evaluator = RankingEvaluator(model, filter_seen)
    for id_weight, cold_offset in ((0.3, -1.0), (0.0, 0.0), (1.0, 2.0)):
        found = evaluator.ranks(batches, id_weight, cold_offset)
        for ranks, batch in zip(found, batches, strict=True):
            expected = naive_ranks(model, batch, id_weight, cold_offset, filter_seen)
            np.testing.assert_array_equal(ranks, expected)


def ndcg_at_10(ranks):
    values = []
    for row in ranks:
        known = row[row > 0]
        ideal = sum(1 / np.log2(place + 1) for place in range(1, min(10, len(known)) + 1))
        values.append(sum(1 / np.log2(r + 1) for r in known if r <= 10) / ideal)
    return values


def naive_ndcg(model, batches, id_weight, cold_offset):
    ranks = [naive_ranks(model, batch, id_weight, cold_offset, True) for batch in batches]
    return np.mean([value for batch in ranks for value in ndcg_at_10(batch)])


def test_metrics_and_coverage_are_of_the_present_weights(model, batches):
    evaluator = RankingEvaluator(model)
    for step in range(2):
        model.id_weight.assign(0.7)
        model.cold_offset.assign(-0.5)
        found = evaluator.evaluate(batches, coverage=True)
        assert found["ndcg_at_10"] == pytest.approx(naive_ndcg(model, batches, 0.7, -0.5), abs=1e-5)
        index = model.build_index()
        shown = set()
        for batch in batches:
            rows = index.search(model(batch["history"]), batch["history"], 10).rows.numpy()
            rows[~batch["history"].numpy().any(axis=1)] = np.arange(1, 11)
            shown |= set(rows.ravel().tolist()) - {0}
        assert found["coverage_at_10"] == pytest.approx(len(shown) / model.catalogue.num_items)
        if step == 0:
            for variable in model.trainable_variables:
                variable.assign(variable + 0.5)


# By hand, and not the code's: which weights there are is part of what is tested.
POPULARITY = (0.0, -0.15, 0.15, -0.3, 0.3, -0.45, 0.45, -0.6)


def best_weights(model, batches, popularity):
    """The weights of the id view and of popularity that a search by hand finds, and the last grid.

    Cold items stand behind all others.
    """

    def quality(id_weight, popularity_weight):
        model.popularity_weight.assign(popularity_weight)
        return naive_ndcg(model, batches, id_weight, -1000.0)

    grid = [step / 10 for step in range(11)]
    by_weight = [quality(weight, 0.0) for weight in grid]
    chosen = grid[int(np.argmax(by_weight))]
    if not popularity:
        return chosen, 0.0, by_weight
    by_popularity = [quality(chosen, weight) for weight in POPULARITY]
    best = POPULARITY[int(np.argmax(by_popularity))]
    near = [weight for weight in grid if abs(weight - chosen) < 0.25]
    return near[int(np.argmax([quality(weight, best) for weight in near]))], best, by_popularity


@pytest.mark.parametrize("popularity", [True, False])
def test_calibration_takes_the_best_weights_of_its_grids(model, batches, popularity):
    model.id_weight.assign(0.5)
    RankingEvaluator(model).calibrate(batches, popularity=popularity)
    chosen = float(model.id_weight), float(model.popularity_weight)
    id_weight, popularity_weight, last_grid = best_weights(model, batches, popularity)
    assert chosen == pytest.approx((id_weight, popularity_weight))
    # The choice was one: the grid's values differ.
    assert np.ptp(last_grid) > 0.001
    model.popularity_weight.assign(0.0)


def test_popularity_alone_is_calibrated_at_the_weight_of_a_view(model, batches):
    for id_weight in (1.0, 0.0):
        model.id_weight.assign(id_weight)
        RankingEvaluator(model).calibrate_popularity(batches)
        chosen, values = float(model.popularity_weight), []
        for weight in POPULARITY:
            model.popularity_weight.assign(weight)
            values.append(naive_ndcg(model, batches, id_weight, -1000.0))
        assert chosen == pytest.approx(POPULARITY[int(np.argmax(values))])
        assert float(model.id_weight) == id_weight
    model.popularity_weight.assign(0.0)


def test_popularity_has_a_weight_where_the_held_out_targets_are_rarer_than_those_of_training():
    counts = [2000] * 10 + [20] * 10
    catalogue = ItemCatalogue.build([f"i{n}" for n in range(20)], counts)
    model = BiVRec(ModelConfig(views=("id",), dimension=4, max_history=6), catalogue)
    model.build_variables()
    lookup = data.ItemLookup(catalogue)
    chosen = []
    for rare in (range(10, 20), range(10)):
        sequences = [("u", [f"i{(n + 3) % 20}"], [f"i{n}"]) for n in rare]
        held_out = data.evaluation_batches(data.serialize_sequences(sequences), lookup, 10)
        RankingEvaluator(model).calibrate(held_out)
        chosen.append(float(model.popularity_weight))
    assert chosen[0] < 0 < chosen[1]


def warm_ndcg_at_20(model, batches, offset):
    """NDCG@20 of warm targets alone, from a full sort."""
    values = []
    for batch in batches:
        ranks = naive_ranks(model, batch, float(model.id_weight), offset, True)
        ranks[batch["target"].numpy() > model.catalogue.num_trained] = 0
        for row in ranks:
            known = row[row > 0]
            if len(known):
                ideal = sum(1 / np.log2(place + 1) for place in range(1, min(20, len(known)) + 1))
                values.append(sum(1 / np.log2(r + 1) for r in known if r <= 20) / ideal)
    return np.mean(values)


@pytest.mark.parametrize("budget", [0.0, 0.004])
def test_cold_items_cost_warm_ones_no_more_than_the_budget(model, batches, budget):
    RankingEvaluator(model).calibrate(batches, cold_item_budget=budget)
    offset = float(model.cold_offset)
    without_cold = warm_ndcg_at_20(model, batches, -100.0)
    assert warm_ndcg_at_20(model, batches, offset) >= (1 - budget) * without_cold - 1e-6
    # And the budget is made use of: where all of them stand in front, they cost much more.
    assert warm_ndcg_at_20(model, batches, 6.0) < (1 - 2 * budget) * without_cold
    assert -12.0 < offset < 6.0


def test_without_cold_items_warm_ones_stand_in_and_ranks_stay_theirs(model, batches):
    catalogue = ItemCatalogue.build(
        [f"i{n}" for n in range(40)],
        range(80, 40, -1),
        [ItemFeatures(f"i{n}", {"text": np.cos(np.arange(4) * n)}) for n in range(40)],
    )
    all_warm = BiVRec(model.config, catalogue)
    all_warm.build_variables()
    rng = np.random.default_rng(1)
    for variable in all_warm.trainable_variables:
        variable.assign(rng.normal(size=variable.shape) * 0.5)
    sequences = []
    for _ in range(60):
        drawn = rng.permutation([f"i{n}" for n in range(40)]).tolist()
        sequences.append(("u", drawn[:5], drawn[5:6]))
    lookup = data.ItemLookup(catalogue)
    own = data.evaluation_batches(data.serialize_sequences(sequences), lookup, 20)
    evaluator = RankingEvaluator(all_warm)
    offsets = []
    for budget in (0.0, 0.3):
        evaluator.calibrate(own, budget)
        offsets.append(float(all_warm.cold_offset))
        for ranks, batch in zip(evaluator.ranks(own), own, strict=True):
            weight = float(all_warm.id_weight)
            expected = naive_ranks(all_warm, batch, weight, offsets[-1], True)
            np.testing.assert_array_equal(ranks, expected)
    assert -12 < offsets[0] < offsets[1] <= 6


def test_where_no_trained_item_is_found_the_model_keeps_what_it_has(model, caplog):
    lookup = data.ItemLookup(model.catalogue)
    nothing = data.evaluation_batches(
        data.serialize_sequences([("u", [], ["never heard of"])]), lookup, 10
    )
    model.cold_offset.assign(-3.0)
    model.id_weight.assign(0.5)
    RankingEvaluator(model).calibrate(nothing)
    # Not the grids' first: a weight of 0 would leave the id view out.
    assert float(model.id_weight) == 0.5
    assert float(model.popularity_weight) == 0.0
    assert float(model.cold_offset) == -3.0
    assert "id weight stays 0.50" in caplog.text
    assert "cold items keep the offset -3.0" in caplog.text


def test_a_larger_budget_never_shows_cold_items_less(model, batches):
    offsets = []
    for budget in (0.0, 0.002, 0.005, 0.5):
        RankingEvaluator(model).calibrate(batches, cold_item_budget=budget)
        offsets.append(float(model.cold_offset))
    assert offsets == sorted(offsets) and offsets[-1] > offsets[0]


@settings(deadline=None, max_examples=20)
@given(
    counts=st.lists(st.integers(0, 4), min_size=3, max_size=8),
    seed=st.integers(0, 10_000),
    filter_seen=st.booleans(),
)
def test_popularity_ranks_are_those_of_a_sort_by_count(counts, seed, filter_seen):
    rng = np.random.default_rng(seed)
    rows = len(counts)
    counts = [0, *counts]
    # With repetition: an item that stands twice in a history is one item of the ranking.
    history = rng.integers(0, rows + 1, size=[3, 5])
    target = rng.integers(-1, rows + 1, size=[3, 2])
    found = popularity_ranks(
        tf.constant(counts, tf.int64),
        tf.constant(history, tf.int32),
        tf.constant(target, tf.int32),
        filter_seen,
    )
    for n in range(3):
        seen = set(history[n].tolist()) if filter_seen else set()
        for place in range(2):
            goal = target[n, place]
            order = sorted(range(1, rows + 1), key=lambda row: (-counts[row], row))
            order = [row for row in order if row == goal or row not in seen]
            expected = {-1: NEVER_FOUND, 0: 0}.get(goal) if goal < 1 else order.index(goal) + 1
            assert int(found[n, place]) == expected
