"""Tables in, examples out: every format, every error, the same content from each."""

import apache_beam as beam
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tensorflow as tf
from pydantic import ValidationError

from bivrec_tf.errors import DataError
from components.beam_support import read_counts, user_errors
from components.table_example_gen.read_table import NAMESPACE, ReadTable
from components.table_example_gen.table_config import TableConfig

INTERACTIONS = TableConfig(kind="interactions")
ITEMS = TableConfig(
    kind="items", text_columns=("title", "genres"), embedding_columns=("image_embedding",)
)


def as_row(record):
    row = {}
    for name, feature in tf.train.Example.FromString(record).features.feature.items():
        kind = feature.WhichOneof("kind")
        row[name] = list(getattr(feature, kind).value) if kind else []
    return row


@pytest.fixture
def read_rows(tmp_path):
    """Returns a function that reads a table and returns its rows, in order, and the counts."""

    def run(pattern, config):
        with user_errors():
            pipeline = beam.Pipeline()
            output = str(tmp_path / "written")
            _ = pipeline | ReadTable(str(pattern), config) | beam.io.WriteToTFRecord(output)
            result = pipeline.run()
            result.wait_until_finish()
        files = [str(file) for file in tmp_path.glob("written-*")]
        rows = [as_row(record) for record in tf.data.TFRecordDataset(files).as_numpy_iterator()]
        return sorted(rows, key=lambda row: row["row"]), read_counts(result, NAMESPACE)

    return run


def interactions_frame(size=50):
    return pd.DataFrame(
        {
            "user_id": [f"u{i % 7}" for i in range(size)],
            "item_id": [i % 11 for i in range(size)],
            "timestamp": [1000 + i // 3 for i in range(size)],
        }
    )


def expected_interactions(frame):
    return [
        {
            "user_id": [user.encode()],
            "item_id": [str(item).encode()],
            "timestamp": [moment],
            "row": [row],
        }
        for row, (user, item, moment) in enumerate(frame.itertuples(index=False))
    ]


def test_parquet_row_groups_and_files_continue_the_row_numbers(tmp_path, read_rows):
    frame = interactions_frame()
    frame[:20].to_parquet(tmp_path / "part-0.parquet", row_group_size=7)
    frame[20:].to_parquet(tmp_path / "part-1.parquet", row_group_size=9)
    rows, counts = read_rows(tmp_path / "part-*.parquet", INTERACTIONS)
    assert rows == expected_interactions(frame)
    assert counts == {"read": 50, "kept": 50}


@pytest.mark.parametrize("ending", ["csv", "csv.gz"])
def test_csv_equals_parquet(tmp_path, read_rows, ending):
    frame = interactions_frame()
    frame[:20].to_csv(tmp_path / f"part-0.{ending}", index=False)
    frame[20:].to_csv(tmp_path / f"part-1.{ending}", index=False)
    rows, counts = read_rows(tmp_path / f"part-*.{ending}", INTERACTIONS)
    assert rows == expected_interactions(frame)
    assert counts == {"read": 50, "kept": 50}


@pytest.mark.parametrize("ending", ["tfrecord", "tfrecord.gz"])
def test_tfrecord_equals_parquet(tmp_path, read_rows, ending):
    frame = interactions_frame()
    path = str(tmp_path / f"table.{ending}")
    compression = "GZIP" if ending.endswith("gz") else ""
    with tf.io.TFRecordWriter(path, compression) as writer:
        for user, item, moment in frame.itertuples(index=False):
            example = tf.train.Example()
            example.features.feature["user_id"].bytes_list.value.append(user.encode())
            example.features.feature["item_id"].int64_list.value.append(item)
            example.features.feature["timestamp"].int64_list.value.append(moment)
            writer.write(example.SerializeToString())
    assert read_rows(path, INTERACTIONS)[0] == expected_interactions(frame)


def test_columns_are_renamed_and_splits_are_read(tmp_path, read_rows):
    path = tmp_path / "table.csv"
    path.write_text("when,who,what,part\n1970-01-01T00:00:07Z,ann,b1,valid\n")
    config = TableConfig(
        kind="interactions",
        columns={"user_id": "who", "item_id": "what", "timestamp": "when", "split": "part"},
    )
    assert read_rows(path, config)[0] == [
        {
            "user_id": [b"ann"],
            "item_id": [b"b1"],
            "timestamp": [7],
            "split": [b"validation"],
            "row": [0],
        }
    ]


def test_datetime_columns_of_any_unit_become_seconds(tmp_path, read_rows):
    for unit in ("s", "ms", "us", "ns"):
        moments = pa.array([1_000_000_000], pa.timestamp("s")).cast(pa.timestamp(unit))
        table = pa.table({"user_id": ["u"], "item_id": ["i"], "timestamp": moments})
        pq.write_table(table, tmp_path / f"{unit}.parquet")
        rows, _ = read_rows(tmp_path / f"{unit}.parquet", INTERACTIONS)
        assert rows[0]["timestamp"] == [1_000_000_000]


def items_frame():
    return pd.DataFrame(
        {
            "item_id": [3, 1, 3, 2],
            "title": ["Heat", None, "Heat", "Amélie"],
            "genres": [["Crime", "Drama"], [], ["Crime", "Drama"], None],
            "image_embedding": [[0.5, 1.0], None, [0.5, 1.0], [2.0, 3.0]],
            "unused": [1, 2, 3, 4],
        }
    )


def test_items_keep_their_columns_and_identical_duplicates_become_one(tmp_path, read_rows):
    items_frame().to_parquet(tmp_path / "items.parquet", row_group_size=1)
    rows, counts = read_rows(tmp_path / "items.parquet", ITEMS)
    assert rows == [
        {
            "item_id": [b"3"],
            "title": [b"Heat"],
            "genres": [b"Crime", b"Drama"],
            "image_embedding": [0.5, 1.0],
            "row": [0],
        },
        {"item_id": [b"1"], "title": [], "genres": [], "image_embedding": [], "row": [1]},
        {
            "item_id": [b"2"],
            "title": ["Amélie".encode()],
            "genres": [],
            "image_embedding": [2.0, 3.0],
            "row": [3],
        },
    ]
    assert counts == {
        "read": 4,
        "kept": 3,
        "dropped_identical_duplicate": 1,
        "missing_title": 1,
        "missing_genres": 2,
        "missing_image_embedding": 1,
    }


def test_embeddings_in_csv_are_json(tmp_path, read_rows):
    path = tmp_path / "items.csv"
    path.write_text('item_id,title,genres,image_embedding\n7,"A, or B",,"[0.5, -1]"\n8,C,,\n')
    rows, _ = read_rows(path, ITEMS)
    assert [row["image_embedding"] for row in rows] == [[0.5, -1.0], []]
    assert rows[0]["title"] == [b"A, or B"]


def write_interactions(path, **columns):
    frame = interactions_frame(4).astype({"item_id": str})
    for name, values in columns.items():
        frame[name] = values
    frame.to_parquet(path) if path.suffix == ".parquet" else frame.to_csv(path, index=False)


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        ({"user_id": ["a", None, "b", "c"]}, ["row 1", "'user_id'", "missing", "remove the row"]),
        ({"item_id": [1.0, 2.0, 3.0, np.nan]}, ["row 0", "'item_id'", "1.0", "floating-point"]),
        ({"timestamp": ["1", "2", "soon", "4"]}, ["row 2", "'timestamp'", "'soon'", "ISO-8601"]),
        ({"timestamp": [1, 2, 3, 10**12]}, ["row 3", "'timestamp'", "milliseconds"]),
    ],
)
def test_bad_cells_name_file_row_column_value_and_remedy(tmp_path, read_rows, columns, expected):
    path = tmp_path / "bad.parquet"
    write_interactions(path, **columns)
    with pytest.raises(DataError) as error:
        read_rows(path, INTERACTIONS)
    for part in [str(path), *expected]:
        assert part in str(error.value)
    assert "while running" not in str(error.value)


def test_csv_errors_name_the_line_also_after_a_cell_of_two_lines(tmp_path, read_rows):
    path = tmp_path / "bad.csv"
    path.write_text('user_id,item_id,timestamp,note\na,b,1,"two\nlines"\n\na,b,soon,\n')
    with pytest.raises(DataError, match=r"row 1 \(line 5\), column 'timestamp': 'soon'"):
        read_rows(path, INTERACTIONS)


@pytest.mark.parametrize("escape", [str, repr])
def test_errors_that_runners_wrap_are_unwrapped(escape):
    # In one process the traceback arrives as it is; from another process it arrives escaped.
    text = (
        "Traceback (most recent call last):\n  File 'x'\nbivrec_tf.errors.DataError: table.csv, "
        "row 2: \"it's Amélie\" is not a time. [while running 'ReadRows']\n\nOriginal: ..."
    )
    with pytest.raises(DataError) as error, user_errors():
        raise RuntimeError(escape(text))
    assert str(error.value) == 'table.csv, row 2: "it\'s Amélie" is not a time.'


def test_errors_of_runners_that_are_not_the_users_are_kept():
    with pytest.raises(RuntimeError, match="no disk"), user_errors():
        raise RuntimeError("no disk")


def test_a_csv_row_of_another_width_is_refused(tmp_path, read_rows):
    path = tmp_path / "bad.csv"
    path.write_text("user_id,item_id,timestamp\na,b,1\na,b,c,2\n")
    with pytest.raises(DataError, match=r"row 1 \(line 3\): has 4 cells. Expected 3"):
        read_rows(path, INTERACTIONS)


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_a_missing_column_is_refused_with_a_close_match(tmp_path, read_rows, ending):
    path = tmp_path / f"bad.{ending}"
    frame = interactions_frame(4).rename(columns={"item_id": "itemid"})
    frame.to_parquet(path) if ending == "parquet" else frame.to_csv(path, index=False)
    with pytest.raises(DataError, match=r"no column 'item_id'. Did you mean 'itemid'\?.*'user_id'"):
        read_rows(path, INTERACTIONS)


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_empty_tables_are_refused(tmp_path, read_rows, ending):
    path = tmp_path / f"empty.{ending}"
    frame = interactions_frame(0)
    frame.to_parquet(path) if ending == "parquet" else frame.to_csv(path, index=False)
    with pytest.raises(DataError, match="no rows"):
        read_rows(path, INTERACTIONS)


@pytest.mark.parametrize("ending", ["parquet", "csv", "tfrecord", "csv.gz"])
def test_unreadable_files_are_refused(tmp_path, read_rows, ending):
    path = tmp_path / f"bad.{ending}"
    path.write_bytes(b"user_id,item_id,timestamp\n\xff\xfe,b,1\n")
    with pytest.raises(DataError, match=f"bad.{ending}.*cannot be read as"):
        read_rows(path, INTERACTIONS)


def test_missing_and_unknown_files_are_refused(tmp_path, read_rows):
    with pytest.raises(DataError, match="no such file"):
        read_rows(tmp_path / "nothing.csv", INTERACTIONS)
    (tmp_path / "table.xlsx").write_bytes(b"")
    with pytest.raises(DataError, match="known format"):
        read_rows(tmp_path / "table.xlsx", INTERACTIONS)


def test_an_item_with_two_contents_is_refused(tmp_path, read_rows):
    frame = items_frame()
    frame.loc[2, "title"] = "Heat (1995)"
    frame.to_parquet(tmp_path / "items.parquet")
    with pytest.raises(DataError, match=r"row 2: item id '3' was already in row 0.*'title'"):
        read_rows(tmp_path / "items.parquet", ITEMS)


def test_embeddings_of_two_lengths_are_refused(tmp_path, read_rows):
    frame = items_frame()
    frame.at[3, "image_embedding"] = [1.0, 2.0, 3.0]
    frame.to_parquet(tmp_path / "items.parquet", row_group_size=1)
    with pytest.raises(DataError, match=r"row 3, column 'image_embedding': has 3 numbers.*has 2"):
        read_rows(tmp_path / "items.parquet", ITEMS)


def test_features_that_are_not_finite_are_refused(tmp_path, read_rows):
    frame = items_frame()
    frame.at[3, "image_embedding"] = [1.0, float("nan")]
    frame.to_parquet(tmp_path / "items.parquet")
    with pytest.raises(DataError, match=r"row 3, column 'image_embedding'.*not finite"):
        read_rows(tmp_path / "items.parquet", ITEMS)


@pytest.mark.parametrize(
    "arguments",
    [
        {"kind": "interactions", "columns": {"rating": "stars"}},
        {"kind": "interactions", "text_columns": ("title",)},
        {"kind": "items", "text_columns": ("row",)},
        {"kind": "items", "text_columns": ("a",), "embedding_columns": ("a",)},
    ],
)
def test_configurations_without_meaning_are_refused(arguments):
    with pytest.raises(ValidationError):
        TableConfig(**arguments)
