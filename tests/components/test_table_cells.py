"""Cells of a user's table: what is accepted, and what the errors say."""

import datetime

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.table_example_gen import cells


@given(st.integers())
def test_integer_ids_become_decimal_strings(number):
    assert cells.identifier(number) == str(number).encode()


@given(st.text(min_size=1, max_size=100))
def test_string_ids_are_kept_or_refused_never_changed(text):
    try:
        assert cells.identifier(text).decode() == text
    except cells.CellError:
        assert not text.strip() or set(text) & set("\0\n\r") or len(text.encode()) > 512


@pytest.mark.parametrize(
    ("cell", "expected"),
    [
        (None, "missing or empty"),
        ("", "missing or empty"),
        ("  ", "missing or empty"),
        (float("nan"), "missing or empty"),
        (12.0, "floating-point"),
        (True, "boolean"),
        ("a\nb", "line end"),
        ("a\0b", "NUL"),
        ("x" * 513, "at most 512"),
        (["a"], "of type list"),
    ],
)
def test_bad_ids_are_refused(cell, expected):
    with pytest.raises(cells.CellError, match=expected):
        cells.identifier(cell)


@pytest.mark.parametrize(
    ("cell", "seconds"),
    [
        (964982703, 964982703),
        (964982703.0, 964982703),
        ("964982703", 964982703),
        (" 964982703.0 ", 964982703),
        ("2000-07-30T18:45:03Z", 964982703),
        ("2000-07-30 18:45:03", 964982703),
        ("2000-07-30T20:45:03+02:00", 964982703),
        (datetime.datetime(2000, 7, 30, 18, 45, 3, 999999), 964982703),
        (datetime.date(1970, 1, 2), 86400),
        ("1970-01-02", 86400),
        (datetime.datetime(1969, 12, 31, 23, 59, 59, 500000), -1),
        (0, 0),
    ],
)
def test_times_become_seconds(cell, seconds):
    assert cells.timestamp(cell) == seconds


@pytest.mark.parametrize(
    ("cell", "expected"),
    [
        (None, "missing"),
        ("soon", "not a time"),
        (1.5, "whole number"),
        (float("inf"), "whole number"),
        (964982703000, "milliseconds"),
        ("964982703000", "milliseconds"),
        ([1], "of type list"),
        (True, "of type bool"),
    ],
)
def test_bad_times_are_refused(cell, expected):
    with pytest.raises(cells.CellError, match=expected):
        cells.timestamp(cell)


@given(st.datetimes(datetime.datetime(1970, 1, 1), datetime.datetime(2200, 1, 1)))
def test_iso_texts_and_datetimes_agree(moment):
    assert cells.timestamp(moment.isoformat()) == cells.timestamp(moment)


@pytest.mark.parametrize(
    ("cell", "expected"),
    [
        ("Tangled", [b"Tangled"]),
        (["Drama", None, "Comedy", " "], [b"Drama", b"Comedy"]),
        (None, []),
        ("", []),
        ([], []),
        (1999, [b"1999"]),
        (False, [b"false"]),
        (float("nan"), []),
        ("Amélie", ["Amélie".encode()]),
    ],
)
def test_texts(cell, expected):
    assert cells.texts(cell) == expected


def test_a_struct_is_no_text():
    with pytest.raises(cells.CellError, match="of type dict"):
        cells.texts({"a": 1})


@pytest.mark.parametrize("cell", [[0.5, -1.0], "[0.5, -1]", (0.5, -1)])
def test_embeddings(cell):
    vector = cells.embedding(cell)
    assert vector is not None
    assert vector.dtype == np.float32
    np.testing.assert_array_equal(vector, [0.5, -1.0])


@pytest.mark.parametrize("cell", [None, "", [], "[]", float("nan")])
def test_missing_embeddings(cell):
    assert cells.embedding(cell) is None


@pytest.mark.parametrize(
    ("cell", "expected"),
    [
        ([0.5, float("nan")], "position 1"),
        ([float("inf")], "position 0"),
        ([[1.0], [2.0]], "2 dimensions"),
        (["a"], "list of numbers"),
        ([1.0, None], "not finite at position 1"),
        ("a b", "not a list"),
        (3.0, "0 dimensions"),
    ],
)
def test_bad_embeddings_are_refused(cell, expected):
    with pytest.raises(cells.CellError, match=expected):
        cells.embedding(cell)


@pytest.mark.parametrize(("cell", "name"), [("valid", b"validation"), (b"Train", b"train")])
def test_splits(cell, name):
    assert cells.split_name(cell) == name


def test_unknown_splits_are_refused():
    with pytest.raises(cells.CellError, match="names no split"):
        cells.split_name("holdout")


@pytest.mark.parametrize(
    ("cell", "expected"),
    [
        (" posters/a b.jpg ", b"posters/a b.jpg"),
        (b"posters/\xc3\xa9.jpg", "posters/é.jpg".encode()),
        ("gs://bucket/a.jpg", b"gs://bucket/a.jpg"),
        ("/data/../a.jpg", b"/data/../a.jpg"),
        (b"\xff\xd8\xff\xe0JFIF", b"\xff\xd8\xff\xe0JFIF"),
        (b"GIF89a\x01\x00", b"GIF89a\x01\x00"),
        ("", None),
        (None, None),
    ],
)
def test_pictures_are_paths_or_bytes(cell, expected):
    assert cells.picture(cell) == expected


@pytest.mark.parametrize(
    ("cell", "told"),
    [
        ("../a.jpg", "leads out of the table's folder"),
        ("a/../../b.jpg", "leads out of the table's folder"),
        ("https://shop.example/a.jpg", "Download the pictures first"),
        (b"HTTP://shop.example/a.jpg", "Download the pictures first"),
        (["a.jpg"], "Expected the path of one picture"),
        ("data:image/png;base64," + "A" * 5_000, "is text but no path"),
    ],
)
def test_cells_that_are_no_picture_are_refused(cell, told):
    with pytest.raises(cells.CellError, match=told):
        cells.picture(cell)
