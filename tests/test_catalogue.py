"""The item order: rows, fingerprint, content, and what it refuses."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bivrec_tf.catalogue import ItemCatalogue, ItemFeatures
from bivrec_tf.errors import DataError

ids = st.lists(st.text(min_size=1, max_size=4), max_size=6, unique=True)


def item(name, **features):
    return ItemFeatures(name, {key: np.array(values) for key, values in features.items()})


@settings(deadline=None)
@given(trained=ids, described=ids)
def test_padding_then_trained_items_as_given_then_cold_ones_by_id(trained, described):
    catalogue = ItemCatalogue.build(
        trained, range(len(trained), 0, -1), [item(name, text=[1.0, 2.0]) for name in described]
    )
    cold = sorted(set(described) - set(trained))
    assert catalogue.item_ids == ("", *trained, *cold)
    assert catalogue.num_trained == len(trained)
    assert catalogue.num_items == len(trained) + len(cold)
    assert catalogue.counts.tolist() == [0, *range(len(trained), 0, -1), *[0] * len(cold)]
    rows = catalogue.rows([*trained, *cold, "", "never seen"])
    assert rows == [*range(1, catalogue.num_items + 1), 0, 0]
    for row, name in enumerate(catalogue.item_ids if described else ()):
        assert catalogue.presence["text"][row] == (name in described)
        assert catalogue.content["text"][row].tolist() == ([1, 2] if name in described else [0, 0])


def test_modalities_may_be_missing_item_by_item():
    catalogue = ItemCatalogue.build(
        ["a", "b"], [2, 1], [item("b", text=[1.0], image=[2.0, 3.0]), item("c", image=[4.0, 5.0])]
    )
    assert catalogue.modalities == {"text": 1, "image": 2}
    assert catalogue.presence["text"].tolist() == [False, False, True, False]
    assert catalogue.presence["image"].tolist() == [False, False, True, True]
    assert catalogue.content["image"].tolist() == [[0, 0], [0, 0], [2, 3], [4, 5]]
    assert catalogue.content["image"].dtype == np.float32


@settings(deadline=None)
@given(one=st.tuples(ids, ids), other=st.tuples(ids, ids))
def test_fingerprints_are_equal_exactly_when_rows_mean_the_same(one, other):
    catalogues = [
        ItemCatalogue.build(trained, [1] * len(trained), [item(name) for name in described])
        for trained, described in (one, other)
    ]
    same = len({(c.item_ids, c.num_trained) for c in catalogues}) == 1
    assert (catalogues[0].fingerprint == catalogues[1].fingerprint) == same


def test_fingerprints_tell_a_line_break_in_an_id_from_two_ids():
    joined = ItemCatalogue.build(["a"], [1], [item("b\nc")])
    apart = ItemCatalogue.build(["a"], [1], [item("b"), item("c")])
    assert joined.fingerprint != apart.fingerprint


def test_content_and_counts_do_not_change_the_fingerprint():
    plain = ItemCatalogue.build(["a", "b"], [2, 1])
    described = ItemCatalogue.build(["a", "b"], [9, 8], [item("a", text=[1.0])])
    assert plain.fingerprint == described.fingerprint


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((["a", "a"], [1, 1]), "item ids of the vocabulary must be distinct and not empty"),
        ((["a", ""], [1, 1]), "item ids of the vocabulary must be distinct and not empty"),
        ((["a", "b"], [1]), "2 item ids with 1 counts"),
        ((["a"], [1], [item("b"), item("b")]), "id 'b' is empty or stands twice"),
        ((["a"], [1], [item("")]), "id '' is empty or stands twice"),
        (
            (["a"], [1], [item("a", text=[1.0]), item("b", text=[1.0, 2.0])]),
            "item 'b': modality 'text' has 2 values, other items have 1",
        ),
    ],
)
def test_what_it_refuses(arguments, message):
    with pytest.raises(DataError, match=message):
        ItemCatalogue.build(*arguments)
