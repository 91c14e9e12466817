"""Row-aligned files of precomputed features: whose row is whose, and every error."""

import numpy as np
import pandas as pd
import pytest
from pydantic import ValidationError

from bivrec_tf.errors import DataError
from components.content_encoder.content_config import ContentConfig

VECTORS = np.arange(12, dtype=np.float64).reshape(4, 3) / 8


def config_of(path, **changes):
    modality = {"name": "image", "kind": "precomputed", "file": str(path)} | changes
    return ContentConfig(modalities=[modality])


def items_of(*ids):
    """Items in this order of rows; the second row was a duplicate of the first."""
    rows = [0, *range(2, len(ids) + 1)]
    return [{"item_id": [key], "row": [row]} for key, row in zip(ids, rows, strict=True)]


@pytest.fixture
def features(tmp_path):
    path = tmp_path / "image_feat.npy"
    np.save(path, VECTORS)
    return path


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", ">f4"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_row_i_belongs_to_row_i_of_the_table(encode, tmp_path, dtype, order):
    np.save(tmp_path / "feat.npy", np.asarray(VECTORS.astype(dtype), order=order))
    rows, counts, modalities = encode(items_of(b"a", b"b", b"c"), config_of(tmp_path / "feat.npy"))
    assert {key: row["image"] for key, row in rows.items()} == {
        b"a": VECTORS[0].tolist(),
        b"b": VECTORS[2].tolist(),
        b"c": VECTORS[3].tolist(),
    }
    assert (counts["image_present"], counts["image_missing"]) == (3, 0)
    info = {"dimension": 3, "kind": "precomputed", "encoder": None, "fingerprint": None}
    assert modalities == {"image": info}


def mmrec_mapping(path):
    """As MMRec writes i_id_mapping.csv: tabs, and names of its own."""
    path.write_text("asin\titemID\nB001\t3\nB002\t0\nB009\t1\n")


def ids_as_parquet(path):
    frame = pd.DataFrame({"asin": ["B001", "B002", "B009"], "itemID": [3, 0, 1]})
    frame.to_parquet(path)


@pytest.mark.parametrize(
    ("name", "write"), [("map.csv", mmrec_mapping), ("map.tsv", mmrec_mapping), ("map.parquet", 0)]
)
def test_a_mapping_says_whose_row_is_whose(encode, features, tmp_path, name, write):
    ids = tmp_path / name
    (write or ids_as_parquet)(ids)
    config = config_of(features, ids=str(ids), id_column="asin", row_column="itemID")
    rows, counts, _ = encode(items_of(b"B001", b"B002", b"B003"), config)
    assert rows[b"B001"] == {"image": VECTORS[3].tolist(), "image_present": [1]}
    assert rows[b"B002"] == {"image": VECTORS[0].tolist(), "image_present": [1]}
    assert rows[b"B003"] == {"image": [0, 0, 0], "image_present": [0]}
    assert (counts["image_present"], counts["image_missing"]) == (2, 1)
    assert counts["image_unknown_ids"] == 1


@pytest.mark.parametrize("name", ["ids.npy", "ids_of_strings.npy", "ids.txt"])
def test_a_list_names_one_id_for_every_row(encode, features, tmp_path, name):
    ids = tmp_path / name
    if name == "ids.txt":
        ids.write_text("7\n8\n9\n10\n")
    else:
        np.save(ids, np.array([7, 8, 9, 10]).astype("U4" if "strings" in name else "i8"))
    rows, counts, _ = encode(items_of(b"10", b"7"), config_of(features, ids=str(ids)))
    assert rows[b"10"]["image"] == VECTORS[3].tolist()
    assert rows[b"7"]["image"] == VECTORS[0].tolist()
    assert counts["image_unknown_ids"] == 2


def test_several_modalities_of_any_name_and_dimension(encode, features, tmp_path):
    np.save(tmp_path / "audio.npy", np.ones([4, 7], np.float16))
    (tmp_path / "audio.txt").write_text("b\nx\ny\nz\n")
    modalities = [
        {"name": "image", "kind": "precomputed", "file": str(features)},
        {"name": "audio", "kind": "precomputed", "file": str(tmp_path / "audio.npy")}
        | {"ids": str(tmp_path / "audio.txt")},
        {"name": "price", "kind": "precomputed", "column": "price"},
    ]
    items = [item | {"price": []} for item in items_of(b"a", b"b")]
    rows, counts, told = encode(items, ContentConfig(modalities=modalities))
    assert rows[b"b"] == {
        "image": VECTORS[2].tolist(),
        "image_present": [1],
        "audio": [1] * 7,
        "audio_present": [1],
        "price": [],
        "price_present": [0],
    }
    assert rows[b"a"]["audio_present"] == [0]
    assert {name: info["dimension"] for name, info in told.items()} == {
        "image": 3,
        "audio": 7,
        "price": None,
    }


def test_a_modality_that_no_item_has_is_a_warning(encode, caplog):
    modality = {"name": "image", "kind": "precomputed", "column": "vector"}
    items = [{"item_id": [b"%d" % n], "vector": []} for n in range(3)]
    rows, counts, _ = encode(items, ContentConfig(modalities=[modality]))
    assert all(row == {"image": [], "image_present": [0]} for row in rows.values())
    assert counts["image_missing"] == len(rows) == 3
    assert "No item has the modality 'image'" in caplog.text


def test_a_file_for_another_table_is_refused(encode, features):
    config = config_of(features)
    assert encode(items_of(b"a", b"b"), config, table_rows=4).counts["items"] == 2
    with pytest.raises(DataError, match=r"image_feat.npy: has 4 rows, but the item table has 5"):
        encode(items_of(b"a", b"b"), config, table_rows=5)
    with pytest.raises(DataError, match=r"has 4 rows, but item 'd' is in row 4"):
        encode(items_of(b"a", b"b", b"c", b"d"), config)


def put(place, value):
    vectors = VECTORS.copy()
    vectors[place] = value
    return vectors


@pytest.mark.parametrize(
    ("array", "told"),
    [
        (np.arange(4), ["shape (4,)", "[items, numbers]"]),
        (np.zeros([4, 0]), ["feat.npy"]),
        (VECTORS.astype(int), ["type int64", "float32"]),
        (VECTORS.astype(object), ["cannot be read as .npy", "pickles"]),
        (put((2, 1), np.nan), ["row 2", "position 1", "nan"]),
        (put((3, 0), 1e300), ["row 3", "position 0", "1e+300"]),
    ],
)
def test_bad_arrays_are_refused_by_file_and_row(encode, tmp_path, array, told):
    np.save(tmp_path / "feat.npy", array)
    with pytest.raises(DataError) as error:
        encode(items_of(b"a", b"b", b"c"), config_of(tmp_path / "feat.npy"))
    for part in [str(tmp_path / "feat.npy"), *told]:
        assert part in str(error.value)


def test_a_torn_or_missing_array_is_refused(encode, features):
    features.write_bytes(features.read_bytes()[:-10])
    with pytest.raises(DataError, match=r"image_feat.npy: cannot be read as .npy"):
        encode(items_of(b"a"), config_of(features))
    features.write_bytes(b"PK\x03\x04 begins as an archive does")
    with pytest.raises(DataError, match=r"image_feat.npy: cannot be read as .npy"):
        encode(items_of(b"a"), config_of(features))
    features.unlink()
    with pytest.raises(DataError, match=r"image_feat.npy: .*No such file"):
        encode(items_of(b"a"), config_of(features))


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("item_id,row\na,0\nb,1\na,2\n", ["row 2 (line 4)", "'a'", "second time"]),
        ("item_id,row\na,0\nb,4\n", ["row 1 (line 3)", "names row 4", "0 to 3"]),
        ("item_id,row\na,-1\n", ["row 0 (line 2)", "names row -1"]),
        ("item_id,row\na,0\nb,first\n", ["row 1 (line 3), column 'row'", "'first'"]),
        ("item_id,row\n,0\n", ["row 0 (line 2), column 'item_id'", "missing or empty"]),
        ("item,row\na,0\n", ["no column 'item_id'", "'item'"]),
    ],
)
def test_bad_mappings_are_refused_by_file_and_row(encode, features, tmp_path, content, told):
    ids = tmp_path / "mapping.csv"
    ids.write_text(content)
    with pytest.raises(DataError) as error:
        encode(items_of(b"a"), config_of(features, ids=str(ids)))
    for part in [str(ids), *told]:
        assert part in str(error.value)


@pytest.mark.parametrize(
    ("content", "told"), [("a\nb\nc\n", "3 ids.*4 rows"), ("a\nb\nb\nc\n", "row 2.*'b'")]
)
def test_bad_lists_are_refused(encode, features, tmp_path, content, told):
    ids = tmp_path / "ids.txt"
    ids.write_text(content)
    with pytest.raises(DataError, match=f"ids.txt.*{told}"):
        encode(items_of(b"a"), config_of(features, ids=str(ids)))


@pytest.mark.parametrize(
    "modality",
    [
        {},
        {"column": "a", "file": "b.npy"},
        {"column": "a", "ids": "c.csv"},
        {"file": "features.csv"},
    ],
)
def test_configurations_without_meaning_are_refused(modality):
    with pytest.raises(ValidationError):
        ContentConfig(modalities=[{"name": "image", "kind": "precomputed"} | modality])
