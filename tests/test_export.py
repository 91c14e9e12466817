"""The exported signatures: strings in, strings out, whatever the strings are."""

import json
import math
import shutil

import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from hypothesis import given, settings
from hypothesis import strategies as st

from bivrec_tf import data, features
from bivrec_tf.availability import UNAVAILABLE_FILE
from bivrec_tf.catalogue import ItemCatalogue, ItemFeatures
from bivrec_tf.config import ExportConfig, ModelConfig
from bivrec_tf.evaluation import RankingEvaluator
from bivrec_tf.export import DESCRIPTION_FILE, export
from bivrec_tf.models import BiVRec
from bivrec_tf.saved_model import read_saved_model

TRAINED = [f"item {n}" for n in range(30)]
COLD = ["cold a", "cold b"]


@pytest.fixture(scope="module")
def model():
    tf_keras.utils.set_random_seed(3)
    rng = np.random.default_rng(0)
    items = [ItemFeatures(i, {"text": rng.normal(size=6)}) for i in TRAINED[:25] + COLD]
    catalogue = ItemCatalogue.build(TRAINED, range(60, 30, -1), items)
    config = ModelConfig(dimension=8, max_history=6, num_interests=3)
    model = BiVRec(config, catalogue)
    model(tf.constant([[1, 2]]))
    for variable in model.trainable_variables:
        variable.assign_add(tf.random.stateless_normal(variable.shape, [1, 2]) * 0.3)
    model.id_weight.assign(0.7)
    model.cold_offset.assign(-0.5)
    model.popularity_weight.assign(-0.3)
    return model


@pytest.fixture(scope="module")
def folder(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("exported") / "1"
    export(model, folder, metrics={"ndcg_at_10": 0.5}, options=ExportConfig(default_k=5, max_k=40))
    return folder


@pytest.fixture(scope="module")
def signatures(folder):
    return tf.saved_model.load(str(folder)).signatures


def padded(histories):
    return tf.ragged.constant([list(h) for h in histories], dtype=tf.string).to_tensor("")


def recommend(
    signatures,
    histories,
    exclude=(("",),),
    unavailable=("",),
    k=5,
    id_weight=-1.0,
    diversity=0.0,
    filter_seen=True,
):
    answer = signatures[features.RECOMMEND](
        history=tf.reshape(padded(histories), [len(histories), -1]),
        exclude=tf.constant(exclude),
        unavailable=tf.constant(unavailable),
        k=tf.constant(k),
        diversity=tf.constant(diversity),
        id_weight=tf.constant(id_weight),
        filter_seen=tf.constant(filter_seen),
    )
    return {name: value.numpy() for name, value in answer.items()}


ids = st.sampled_from([*TRAINED, *COLD, "unknown", "?", "ünknøwn"])
histories = st.lists(st.lists(ids, max_size=12), min_size=1, max_size=3)


@settings(deadline=None, max_examples=25)
@given(histories=histories)
def test_any_history_gets_k_distinct_unseen_items_and_finite_scores(signatures, histories):
    answer = recommend(signatures, histories)
    for history, items, scores in zip(
        histories, answer[features.ITEM_IDS], answer[features.SCORES], strict=True
    ):
        found = [item.decode() for item in items]
        assert len(set(found)) == 5 and set(found) <= {*TRAINED, *COLD}
        assert not set(found) & set(history)
        assert np.all(np.isfinite(scores)) and np.all(np.diff(scores) <= 0)
    unknown = [sum(item not in {*TRAINED, *COLD} for item in history) for history in histories]
    assert answer[features.UNKNOWN_ITEMS].tolist() == unknown


@settings(deadline=None, max_examples=15)
@given(history=st.lists(st.sampled_from(TRAINED), min_size=1, max_size=10, unique=True))
def test_the_served_list_is_the_keras_models_own(model, signatures, history):
    rows = tf.constant([model.catalogue.rows(history)])
    own = model.build_index().search(model(rows), excluded_rows=rows, k=5)
    answer = recommend(signatures, [history])
    expected = [model.catalogue.item_ids[row] for row in own.rows[0].numpy()]
    assert [item.decode() for item in answer[features.ITEM_IDS][0]] == expected
    np.testing.assert_allclose(answer[features.SCORES][0], own.scores[0], rtol=1e-5, atol=1e-6)


@settings(deadline=None, max_examples=10)
@given(history=st.lists(ids, min_size=1, max_size=8), others=histories)
def test_neither_padding_nor_other_requests_change_an_answer(signatures, history, others):
    alone = recommend(signatures, [history])
    longest = ["item 1"] * 12
    together = recommend(signatures, [history, *others, longest])
    np.testing.assert_array_equal(alone[features.ITEM_IDS][0], together[features.ITEM_IDS][0])
    np.testing.assert_allclose(
        alone[features.SCORES][0], together[features.SCORES][0], rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize("history", [[], ["unknown"], ["unknown", "?"]])
def test_without_a_known_history_the_answer_is_the_popularity_list(signatures, history):
    answer = recommend(signatures, [history], exclude=[["item 1", "unknown"]], k=4)
    assert [i.decode() for i in answer[features.ITEM_IDS][0]] == [
        "item 0",
        "item 2",
        "item 3",
        "item 4",
    ]
    assert answer[features.INTEREST].tolist() == [[-1] * 4]
    assert set(answer[features.BECAUSE].ravel()) == {b""}


def test_exclusions_hold_and_fewer_than_k_items_are_padded_with_empty_ids(signatures):
    history, excluded = ["item 1"], [*TRAINED[3:], *COLD]
    answer = recommend(signatures, [history], exclude=[excluded], k=7)
    assert sorted(answer[features.ITEM_IDS][0]) == [b""] * 5 + [b"item 0", b"item 2"]
    assert answer[features.INTEREST][0][2:].tolist() == [-1] * 5
    seen = recommend(signatures, [history], exclude=[excluded], k=7, filter_seen=False)
    assert b"item 1" in seen[features.ITEM_IDS][0]


def test_the_weight_of_a_request_moves_the_score_between_the_views(signatures, model):
    history = ["item 1", "item 5"]
    counts = dict(zip(model.catalogue.item_ids, model.catalogue.counts.tolist(), strict=True))
    for weight, view in ((1.0, 0), (0.0, 1)):
        answer = recommend(signatures, [history], id_weight=weight, k=8)
        items = [item.decode() for item in answer[features.ITEM_IDS][0]]
        warm = [place for place, item in enumerate(items) if "cold" not in item]
        popularity = [-0.3 * math.log(counts[items[place]]) for place in warm]
        np.testing.assert_allclose(
            answer[features.SCORES][0][warm],
            answer[features.VIEW_SCORES][0][warm, view] + popularity,
            rtol=1e-5,
        )


def test_reasons_are_items_of_the_history_that_the_model_looked_at(signatures):
    history = [*TRAINED[:10], "unknown"]
    answer = recommend(signatures, [history])
    looked_at = {item.encode() for item in TRAINED[4:10]}
    for reasons in answer[features.BECAUSE][0]:
        assert set(reasons) <= looked_at and len(set(reasons)) == 3


def test_because_says_of_given_items_what_recommend_says_of_its_own(model, signatures):
    histories = [TRAINED[:6], ["item 9", "unknown"]]
    answer = recommend(signatures, histories)
    given = tf.concat([answer[features.ITEM_IDS], [["nowhere"], ["item 3"]]], axis=1)
    because = signatures[features.BECAUSE](history=padded(histories), item_ids=given)
    reasons, weights = (because[name].numpy() for name in sorted(because))
    np.testing.assert_array_equal(reasons[:, :5], answer[features.BECAUSE])
    # Nothing is behind what the model does not know; a single item is behind all else.
    assert set(reasons[0, 5]) == {b""} and not weights[0, 5].any()
    assert reasons[1, 5].tolist() == [b"item 9", b"", b""]
    np.testing.assert_allclose(weights[1, :5], [[1, 0, 0]] * 5, rtol=1e-5)
    assert np.all(np.diff(weights, axis=2) <= 0) and np.all(weights.sum(axis=2) <= 1 + 1e-5)


def test_items_named_in_a_request_or_in_the_file_beside_the_model_are_switched_off(
    signatures, folder, tmp_path, capfd
):
    history = ["item 1", "item 5"]
    first, second = recommend(signatures, [history])[features.ITEM_IDS][0][:2]
    for unavailable in ([first.decode(), "unknown", ""], [first.decode()]):
        answer = recommend(signatures, [history, ["unknown"]], unavailable=unavailable)
        assert answer[features.ITEM_IDS][0][0] == second
        assert first not in answer[features.ITEM_IDS]
    # All but three: k results come back as long as k exist.
    others = [i for i in TRAINED if i not in ("item 7", "item 8", "item 9")] + COLD
    answer = recommend(signatures, [history, []], unavailable=others)
    for found in answer[features.ITEM_IDS]:
        assert {i.decode() for i in found} == {"item 7", "item 8", "item 9", ""}

    copy = tmp_path / "2"
    shutil.copytree(folder, copy)
    lines = [first.decode(), "", "nowhere", "item 0", first.decode()]
    (copy / "assets" / UNAVAILABLE_FILE).write_bytes("\r\n".join(lines).encode())
    switched = tf.saved_model.load(str(copy)).signatures
    assert "switches off 2 items; ids that are unknown: 1" in capfd.readouterr().err
    answer = recommend(switched, [history, []])
    assert answer[features.ITEM_IDS][0][0] == second
    assert not {first, b"item 0"} & set(answer[features.ITEM_IDS].ravel())
    similar = switched[features.SIMILAR_ITEMS](item_id=tf.constant(["item 1"]), k=tf.constant(31))
    found = set(similar["mm_item_ids"].numpy().ravel())
    assert not {first, b"item 0"} & found and b"item 2" in found


def test_similar_items_are_the_nearest_by_cosine_in_each_view(model, signatures):
    asked = ["item 4", "cold a", "unknown", ""]
    answer = signatures[features.SIMILAR_ITEMS](item_id=tf.constant(asked), k=tf.constant(6))
    answer = {name: value.numpy() for name, value in answer.items()}
    assert answer.pop(features.UNKNOWN_ITEMS).tolist() == [0, 0, 1, 0]
    ids = np.array(model.catalogue.item_ids)
    for view, table in model.item_tables().items():
        names = answer[features.similar_items_name(view)]
        scores = answer[features.similar_scores_name(view)]
        unit = table.numpy() / np.maximum(np.linalg.norm(table, axis=1, keepdims=True), 1e-12)
        for number, item_id in enumerate(asked):
            row = model.catalogue.rows([item_id])[0]
            if not unit[row].any():
                assert set(names[number]) == {b""} and not scores[number].any()
                continue
            cosines = unit @ unit[row]
            cosines[[0, row]] = -2
            if view == "id":
                cosines[31:] = -2
            best = np.argsort(-cosines, kind="stable")[:6]
            assert [name.decode() for name in names[number]] == ids[best].tolist()
            np.testing.assert_allclose(scores[number], cosines[best], rtol=1e-4)


def test_diversity_brings_in_more_interests_and_keeps_the_best_item_first(signatures):
    histories = [[f"item {n}"] for n in range(12)]
    plain = recommend(signatures, histories, k=8)
    mixed = recommend(signatures, histories, k=8, diversity=0.7)
    kinds = [
        np.mean([len(set(row)) for row in answer[features.INTEREST]]) for answer in (plain, mixed)
    ]
    assert kinds[1] > kinds[0]
    np.testing.assert_array_equal(plain[features.ITEM_IDS][:, 0], mixed[features.ITEM_IDS][:, 0])
    for row, history in zip(mixed[features.ITEM_IDS], histories, strict=True):
        assert len(set(row)) == 8 and history[0].encode() not in row and b"" not in row
    every = recommend(signatures, [["item 1"]], k=40, diversity=1.0)[features.ITEM_IDS][0]
    assert set(every) == {i.encode() for i in [*TRAINED, *COLD]} - {b"item 1"} | {b""}


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"k": 0}, "k: expected at least 1"),
        ({"k": 41}, "k: expected at most 40"),
        ({"id_weight": 1.5}, "id_weight"),
        ({"diversity": 1.5}, "diversity"),
        ({"diversity": -0.1}, "diversity"),
    ],
)
def test_arguments_out_of_range_are_invalid_arguments(signatures, arguments, told):
    with pytest.raises(tf.errors.InvalidArgumentError, match=told):
        recommend(signatures, [["item 1"]], **arguments)


@pytest.mark.parametrize("dtype", ["float16", "int8"])
def test_smaller_tables_change_scores_by_little_and_are_read_back(model, folder, tmp_path, dtype):
    export(model, tmp_path / "1", options=ExportConfig(default_k=5, table_dtype=dtype))
    small = tf.saved_model.load(str(tmp_path / "1")).signatures
    whole = tf.saved_model.load(str(folder)).signatures
    histories = [[item] for item in TRAINED]
    one, other = (recommend(each, histories) for each in (small, whole))
    same = [
        len(set(a) & set(b)) / 5
        for a, b in zip(one[features.ITEM_IDS], other[features.ITEM_IDS], strict=True)
    ]
    assert np.mean(same) > 0.95
    np.testing.assert_allclose(one[features.SCORES], other[features.SCORES], atol=0.05)
    saved, exact = read_saved_model(tmp_path / "1"), read_saved_model(folder)
    assert saved.export.table_dtype == dtype
    for view, table in exact.tables.items():
        step = np.abs(table).max(axis=1, keepdims=True) / (127 if dtype == "int8" else 1024)
        assert np.all(np.abs(saved.tables[view] - table) <= step)


def test_interests_name_the_items_they_allocate(model, signatures):
    answer = signatures[features.INTERESTS](tf.constant([["item 3", "unknown", "cold a"]]))
    assert answer[features.HISTORY_ITEMS].numpy()[0].tolist() == [b"", b"item 3", b"cold a"]
    for view in features.VIEWS:
        allocation = answer[features.allocation_name(view)].numpy()[0]
        np.testing.assert_allclose(allocation.sum(axis=0), [0, 1, 1], atol=1e-5)
        assert answer[features.interests_name(view)].shape == (1, 3, 8)


SEQUENCES = [
    ("a", TRAINED[:4], ["item 9"]),
    ("b", ["item 8"], ["item 2", "cold a", "nowhere"]),
    ("c", [], ["item 0"]),
]


def test_evaluate_agrees_with_the_offline_evaluator(model, signatures):
    serialized = list(data.serialize_sequences(SEQUENCES).as_numpy_iterator())
    values = signatures[features.EVALUATE](tf.constant(serialized))
    batches = data.evaluation_batches(
        data.serialize_sequences(SEQUENCES), data.ItemLookup(model.catalogue)
    )
    offline = RankingEvaluator(model).evaluate(batches)
    for name, value in offline.items():
        assert values[name].shape == (3, 1)
        assert float(np.mean(values[name])) == pytest.approx(value, abs=1e-6)
    # The most popular item, of an empty history: exactly what popularity would have said.
    assert float(values["ndcg_at_10"][2, 0]) == 1.0
    assert float(values["ndcg_at_20_over_popularity"][2, 0]) == 0.0


def test_examples_answers_as_the_default_signature_does(signatures):
    serialized = list(data.serialize_sequences(SEQUENCES[:2]).as_numpy_iterator())
    by_example = signatures[features.EXAMPLES](tf.constant(serialized))
    direct = signatures[features.SERVING_DEFAULT](
        history=padded([history for _, history, _ in SEQUENCES[:2]]), exclude=tf.constant([[""]])
    )
    assert set(by_example) == set(direct)
    for name in direct:
        np.testing.assert_array_equal(by_example[name], direct[name])


def test_a_description_stands_beside_the_model(model, folder):
    description = json.loads((folder / DESCRIPTION_FILE).read_text())
    assert description["items"] == {
        "fingerprint": model.catalogue.fingerprint,
        "trained": 30,
        "cold": 2,
        "retired": 0,
    }
    assert description["validation"] == {"ndcg_at_10": 0.5}
    assert description["id_weight"] == pytest.approx(0.7)
