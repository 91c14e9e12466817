"""Beam core: from the files of a table to checked, serialised `tf.train.Example`s."""

import logging
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import apache_beam as beam
import tensorflow as tf

from bivrec_tf import features
from bivrec_tf.errors import DataError
from components import example_features
from components.beam_support import increment
from components.table_example_gen import cells
from components.table_example_gen.sources import Row, Slice, empty_table, plan_slices, read_slice
from components.table_example_gen.table_config import TableConfig

NAMESPACE = "bivrec/table_example_gen"
LENGTHS = "lengths"
EXAMPLES = "examples"

# (row number, place for messages, serialised example without its row number)
NumberedContent = tuple[int, str, bytes]


class ReadTable(beam.PTransform):
    """Reads a table and checks every row.

    Output: serialised `tf.train.Example`s with the canonical features of `bivrec_tf.features`
    (`user_id`, `item_id`, `timestamp`, `row`, `split`), for items also every kept column.
    Identical rows of the item table become one (counted); interactions are never dropped here.

    Raises:
        DataError: when the pipeline is built (no file, no column) or runs (a bad cell); the
            message names file, row, column, the value, what was expected and what to do.
    """

    def __init__(self, pattern: str, config: TableConfig):
        super().__init__()
        self._pattern = pattern
        self._config = config

    def expand(self, pbegin: beam.pvalue.PBegin) -> beam.PCollection[bytes]:
        """Builds the steps; see the class."""
        config = self._config
        slices = plan_slices(self._pattern, list(config.user_columns().values()))
        encoded = (
            pbegin
            | "Slices" >> beam.Create(slices)
            | "SpreadSlices" >> beam.Reshuffle()
            | "ReadRows"
            >> beam.ParDo(_ReadRows(self._pattern, config)).with_outputs(LENGTHS, main=EXAMPLES)
        )
        if config.kind == "interactions":
            return encoded[EXAMPLES]
        # The result is empty; the check must not be optimised away, so it is joined in.
        checked_lengths = (
            encoded[LENGTHS]
            | "FirstOfLength" >> beam.CombinePerKey(min)
            | "ByColumn" >> beam.Map(lambda item: (item[0][0], (item[0][1], item[1])))
            | "LengthsOfColumn" >> beam.GroupByKey()
            | "CheckLengths" >> beam.ParDo(_CheckLengths())
        )
        examples = (
            encoded[EXAMPLES]
            | "ByItem" >> beam.GroupByKey()
            | "DropDuplicates" >> beam.ParDo(_DropDuplicates())
        )
        return (examples, checked_lengths) | "Join" >> beam.Flatten()


class _ReadRows(beam.DoFn):
    """Slice -> examples, of items keyed by id and still without their row number.

    The output `LENGTHS` holds ((column, length), (row, place)) for every embedding.
    """

    def __init__(self, pattern: str, config: TableConfig):
        self._pattern = pattern
        self._config = config

    def process(self, part: Slice) -> Iterator[Any]:
        columns = self._config.user_columns()
        encoders = {name: self._encoder(name) for name in columns}
        number_of_rows = 0
        for row in read_slice(part, list(columns.values())):
            number_of_rows += 1
            example = tf.train.Example()
            for (name, column), cell in zip(columns.items(), row.cells, strict=True):
                length = _encode_cell(example, encoders[name], row, name, column, cell)
                if length is not None:
                    yield beam.pvalue.TaggedOutput(
                        LENGTHS, ((name, length), (row.number, row.place()))
                    )
            if self._config.kind == "interactions":
                # The row number is data: it orders interactions of the same second.
                example_features.set_integers(example, features.ROW, [row.number])
                yield example_features.serialize(example)
            else:
                item_id = example_features.get_bytes(example, features.ITEM_ID)[0]
                yield item_id, (row.number, row.place(), example_features.serialize(example))
        if number_of_rows == 0 and part.format != "parquet":
            raise empty_table(self._pattern)
        increment(NAMESPACE, "read", number_of_rows)
        if self._config.kind == "interactions":
            increment(NAMESPACE, "kept", number_of_rows)
        logging.getLogger(__name__).info("Read %d rows of %s", number_of_rows, part.files[0])

    def _encoder(self, name: str) -> Callable[[tf.train.Example, str, Any], int | None]:
        if name in self._config.text_columns:
            return _encode_text
        if name in self._config.embedding_columns:
            return _encode_embedding
        if name in self._config.image_columns:
            return _encode_picture
        if name == features.TIMESTAMP:
            return _encode_timestamp
        return _encode_split if name == features.SPLIT else _encode_identifier


def _encode_cell(
    example: tf.train.Example,
    encode: Callable[[tf.train.Example, str, Any], int | None],
    row: Row,
    name: str,
    column: str,
    cell: Any,
) -> int | None:
    """Adds a cell to the example; returns the length of an embedding, else None."""
    try:
        return encode(example, name, cell)
    except cells.CellError as error:
        raise DataError(f"{row.place()}, column '{column}': {cell!r:.200} {error}.") from None


def _encode_identifier(example: tf.train.Example, name: str, cell: Any) -> None:
    example_features.set_bytes(example, name, [cells.identifier(cell)])


def _encode_timestamp(example: tf.train.Example, name: str, cell: Any) -> None:
    example_features.set_integers(example, name, [cells.timestamp(cell)])


def _encode_split(example: tf.train.Example, name: str, cell: Any) -> None:
    example_features.set_bytes(example, name, [cells.split_name(cell)])


def _encode_text(example: tf.train.Example, name: str, cell: Any) -> None:
    texts = cells.texts(cell)
    if texts:
        example_features.set_bytes(example, name, texts)
    else:
        example_features.set_missing(example, name)
        increment(NAMESPACE, f"missing_{name}")


def _encode_picture(example: tf.train.Example, name: str, cell: Any) -> None:
    picture = cells.picture(cell)
    if picture is None:
        example_features.set_missing(example, name)
        increment(NAMESPACE, f"missing_{name}")
    else:
        example_features.set_bytes(example, name, [picture])


def _encode_embedding(example: tf.train.Example, name: str, cell: Any) -> int | None:
    vector = cells.embedding(cell)
    if vector is None:
        example_features.set_missing(example, name)
        increment(NAMESPACE, f"missing_{name}")
        return None
    example_features.set_floats(example, name, vector)
    return len(vector)


class _CheckLengths(beam.DoFn):
    """Column -> its lengths; outputs nothing, raises if there are two."""

    def process(
        self, element: tuple[str, Iterable[tuple[int, tuple[int, str]]]]
    ) -> Iterator[bytes]:
        column, lengths = element
        by_row = sorted((row, place, length) for length, (row, place) in lengths)
        if len(by_row) > 1:
            (_, first_place, first), (_, other_place, other) = by_row[:2]
            raise DataError(
                f"{other_place}, column '{column}': has {other} numbers, but {first_place} has "
                f"{first}. Expected one length in the whole column; encode the items again."
            )
        yield from ()


class _DropDuplicates(beam.DoFn):
    """Item id -> its one content, with the number of the first row that holds it."""

    def process(self, element: tuple[bytes, Iterable[NumberedContent]]) -> Iterator[bytes]:
        item_id, rows = element
        first: NumberedContent | None = None
        duplicates = 0
        for row in rows:
            if first is None:
                first = row
                continue
            if row[2] != first[2]:
                raise _different_content(item_id, *sorted([first, row]))
            duplicates += 1
            first = min(first, row)
        assert first is not None
        increment(NAMESPACE, "kept")
        if duplicates:
            increment(NAMESPACE, "dropped_identical_duplicate", duplicates)
        example = tf.train.Example.FromString(first[2])
        example_features.set_integers(example, features.ROW, [first[0]])
        yield example_features.serialize(example)


def _different_content(
    item_id: bytes, first: NumberedContent, second: NumberedContent
) -> DataError:
    one = tf.train.Example.FromString(first[2]).features.feature
    other = tf.train.Example.FromString(second[2]).features.feature
    columns = ", ".join(f"'{name}'" for name in sorted(one) if one[name] != other[name])
    return DataError(
        f"{second[1]}: item id {item_id.decode('utf-8', 'replace')!r} was already in row "
        f"{first[0]} with other content in column {columns}. Expected one row for an item; "
        "merge the rows or remove one."
    )
