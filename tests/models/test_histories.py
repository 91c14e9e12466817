"""Compacting, cutting and drawing, against Python lists."""

import numpy as np
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from bivrec_tf.models.histories import compact, draw_positions, prefixes

rows_strategy = st.integers(0, 7).flatmap(
    lambda length: st.lists(
        st.lists(st.integers(0, 5), min_size=length, max_size=length), min_size=1, max_size=4
    )
)


@settings(deadline=None, max_examples=40)
@given(rows=rows_strategy, max_history=st.integers(1, 8))
def test_compact_keeps_the_latest_known_items_in_order_on_the_right(rows, max_history):
    length = len(rows[0])
    found = compact(tf.constant(np.array(rows, np.int32).reshape(len(rows), length)), max_history)
    width = max(1, min(length, max_history))
    expected = []
    for row in rows:
        known = [item for item in row if item > 0][-width:]
        expected.append([0] * (width - len(known)) + known)
    np.testing.assert_array_equal(found, expected)


@settings(deadline=None, max_examples=30)
@given(
    batch=st.integers(1, 4),
    length=st.integers(1, 6),
    data=st.data(),
)
def test_prefixes_are_what_stood_up_to_a_position(batch, length, data):
    rows = np.arange(1, batch * length + 1).reshape(batch, length).astype(np.int32)
    positions = data.draw(st.lists(st.integers(0, batch * length - 1), max_size=5))
    found = prefixes(tf.constant(rows), tf.constant(positions, tf.int32))
    assert found.shape == (len(positions), length)
    for cut, position in zip(found.numpy(), positions, strict=True):
        row, last = divmod(position, length)
        assert cut.tolist() == [0] * (length - 1 - last) + rows[row, : last + 1].tolist()


@settings(deadline=None, max_examples=30)
@given(
    wanted=st.lists(st.lists(st.booleans(), min_size=5, max_size=5), min_size=1, max_size=4),
    limit=st.none() | st.integers(1, 9),
)
def test_positions_are_drawn_among_the_wanted_up_to_the_limit_of_each_row(wanted, limit):
    drawn = draw_positions(tf.constant(wanted), limit).numpy().tolist()
    assert drawn == sorted(set(drawn))
    for row, flags in enumerate(wanted):
        mine = [position % 5 for position in drawn if position // 5 == row]
        assert all(flags[t] for t in mine)
        assert len(mine) == (sum(flags) if limit is None else min(limit, sum(flags)))


def test_every_wanted_position_is_drawn_alike():
    tf.random.set_seed(0)
    wanted = tf.tile(tf.constant([[False, True, True, True, False]]), [9000, 1])
    drawn = draw_positions(wanted, 1).numpy() % 5
    shares = np.bincount(drawn, minlength=5) / 9000
    np.testing.assert_allclose(shares, [0, 1 / 3, 1 / 3, 1 / 3, 0], atol=0.02)
