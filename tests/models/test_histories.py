"""Compacting, cutting and drawing, against Python lists."""

import numpy as np
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from bivrec_tf.models.histories import compact, draw_positions

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
    wanted=st.lists(st.lists(st.booleans(), min_size=5, max_size=5), min_size=1, max_size=4),
    limit=st.none() | st.integers(1, 9),
)
def test_positions_are_drawn_among_the_wanted_up_to_the_limit_of_each_row(wanted, limit):
    positions, has_target = draw_positions(tf.constant(wanted), limit)
    assert (
        positions.shape == has_target.shape == (len(wanted), 5 if limit is None else min(limit, 5))
    )
    for flags, row, used in zip(wanted, positions.numpy(), has_target.numpy(), strict=True):
        mine = row[used].tolist()
        assert len(set(mine)) == len(mine) and all(flags[t] for t in mine)
        assert len(mine) == (sum(flags) if limit is None else min(limit, sum(flags)))
        assert all(0 <= t < 5 for t in row)


def test_every_wanted_position_is_drawn_alike():
    tf.random.set_seed(0)
    wanted = tf.tile(tf.constant([[False, True, True, True, False]]), [9000, 1])
    drawn, _ = draw_positions(wanted, 1)
    shares = np.bincount(drawn.numpy()[:, 0], minlength=5) / 9000
    np.testing.assert_allclose(shares, [0, 1 / 3, 1 / 3, 1 / 3, 0], atol=0.02)
