"""Reading of files, row by row, whatever their format; nothing here knows what a row means."""

import csv
import difflib
import gzip
import io
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO, Literal

import pyarrow as pa
import pyarrow.parquet as pq
import tensorflow as tf
from apache_beam.io.filesystem import CompressionTypes
from apache_beam.io.filesystems import FileSystems
from google.protobuf.message import DecodeError

from bivrec_tf.errors import DataError

BATCH_ROWS = 4096
# A cell of a CSV can hold an embedding of thousands of numbers as JSON.
MAX_CSV_CELL_CHARACTERS = 1 << 24

TableFormat = Literal["parquet", "csv", "tfrecord"]
_ENDINGS: dict[str, TableFormat] = {
    ".parquet": "parquet",
    ".csv": "csv",
    ".csv.gz": "csv",
    ".tsv": "csv",
    ".tsv.gz": "csv",
    ".tfrecord": "tfrecord",
    ".tfrecord.gz": "tfrecord",
}


@dataclass(frozen=True)
class Row:
    """One row: where it stands, and the cells in the order of the asked columns.

    Attributes:
        file: path of the file.
        number: 0-based position in the table, over all of its files in order of their paths.
        line: 1-based line of a CSV file at which the row begins, otherwise None.
        cells: the cells as the format gave them.
    """

    file: str
    number: int
    line: int | None
    cells: Sequence[Any]

    def place(self) -> str:
        """Returns file, row and line for an error message."""
        line = "" if self.line is None else f" (line {self.line})"
        return f"{self.file}, row {self.number}{line}"


@dataclass(frozen=True)
class Slice:
    """A part of a table that one worker reads.

    Parquet is cut by row group, because its footer tells where each begins. The other formats
    must be read from the start to know the number of a row, so all their files are one slice.
    """

    format: TableFormat
    files: tuple[str, ...]
    first_row: int = 0
    row_group: int = 0


def plan_slices(pattern: str, columns: Sequence[str]) -> list[Slice]:
    """Returns the slices of the table whose files match a pattern.

    Args:
        pattern: path or glob pattern, on any file system that Beam knows.
        columns: the user's names of the columns that will be read.

    Raises:
        DataError: no such file, an unknown format, two formats, an unreadable file, a missing
            column, or no rows.
    """
    files = sorted(match.path for match in FileSystems.match([pattern])[0].metadata_list)
    if not files:
        raise DataError(f"{pattern}: there is no such file. Check the path in the configuration.")
    formats = {_format_of(file) for file in files}
    if len(formats) > 1:
        raise DataError(f"{pattern} matches files of several formats ({', '.join(formats)}).")
    table_format = formats.pop()
    if table_format != "parquet":
        return [Slice(format=table_format, files=tuple(files))]
    slices = []
    first_row = 0
    for file in files:
        with FileSystems.open(file) as handle:
            metadata = _open_parquet(file, handle)
            check_columns(file, metadata.schema_arrow.names, columns)
            for row_group in range(metadata.metadata.num_row_groups):
                slices.append(Slice("parquet", (file,), first_row, row_group))
                first_row += metadata.metadata.row_group(row_group).num_rows
    if first_row == 0:
        raise empty_table(pattern)
    return slices


def empty_table(pattern: str) -> DataError:
    """Returns the error for a table without rows."""
    return DataError(f"{pattern}: the table has no rows. Expected at least one.")


def _format_of(file: str) -> TableFormat:
    for ending, table_format in _ENDINGS.items():
        if file.lower().endswith(ending):
            return table_format
    raise DataError(
        f"{file}: the ending tells no known format. Expected one of {', '.join(_ENDINGS)}."
    )


def check_columns(file: str, present: Sequence[str], wanted: Sequence[str]) -> None:
    """Checks that a file has the wanted columns.

    Raises:
        DataError: a column is missing; the message lists those there are, and a close match.
    """
    for column in wanted:
        if column not in present:
            close = difflib.get_close_matches(column, present, n=1, cutoff=0.5)
            hint = f" Did you mean '{close[0]}'?" if close else ""
            raise DataError(
                f"{file}: there is no column '{column}'.{hint} The file has: "
                f"{', '.join(map(repr, present))}. Name the columns in the configuration."
            )


def read_slice(part: Slice, columns: Sequence[str]) -> Iterator[Row]:
    """Yields the rows of a slice with the cells of `columns`, in that order.

    Raises:
        DataError: a file cannot be read, or lacks a column.
    """
    if part.format == "parquet":
        yield from _read_row_group(part, columns)
        return
    read_file = _read_csv if part.format == "csv" else _read_tfrecord
    first_row = part.first_row
    for file in part.files:
        for row in read_file(file, first_row, columns):
            yield row
            first_row = row.number + 1


def _open_parquet(file: str, handle: BinaryIO) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(handle)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{file}: cannot be read as Parquet ({error}). Write it again.") from error


def _read_row_group(part: Slice, columns: Sequence[str]) -> Iterator[Row]:
    file = part.files[0]
    number = part.first_row
    with FileSystems.open(file) as handle:
        table = _open_parquet(file, handle)
        batches = table.iter_batches(
            batch_size=BATCH_ROWS, row_groups=[part.row_group], columns=list(dict.fromkeys(columns))
        )
        while True:
            try:
                batch = next(batches, None)
            except (pa.ArrowException, OSError) as error:
                raise DataError(f"{file}, after row {number - 1}: unreadable ({error}).") from error
            if batch is None:
                return
            cells_by_column = [batch.column(column).to_pylist() for column in columns]
            for cells in zip(*cells_by_column, strict=True):
                yield Row(file, number, None, cells)
                number += 1


def _read_csv(file: str, first_row: int, columns: Sequence[str]) -> Iterator[Row]:
    csv.field_size_limit(MAX_CSV_CELL_CHARACTERS)
    number = first_row
    with FileSystems.open(file, compression_type=CompressionTypes.UNCOMPRESSED) as handle:
        content = gzip.GzipFile(fileobj=handle) if file.lower().endswith(".gz") else handle
        text = io.TextIOWrapper(content, encoding="utf-8-sig", newline="")
        line = 1
        try:
            # What separates cells is told by the header, because tables with tabs are named .csv
            # as often as .tsv.
            first_line = text.readline()
            lines = itertools.chain([first_line] if first_line else [], text)
            delimiter = "\t" if "\t" in first_line and "," not in first_line else ","
            reader = csv.reader(lines, delimiter=delimiter, strict=True)
            header = next(reader, [])
            check_columns(file, header, columns)
            places = [header.index(column) for column in columns]
            line = reader.line_num + 1
            for record in reader:
                if record:
                    if len(record) != len(header):
                        raise DataError(
                            f"{file}, row {number} (line {line}): has {len(record)} cells. "
                            f"Expected {len(header)}, as in the header; quote cells with commas."
                        )
                    yield Row(file, number, line, [record[place] for place in places])
                    number += 1
                line = reader.line_num + 1
        except (csv.Error, UnicodeDecodeError, gzip.BadGzipFile, EOFError) as error:
            raise DataError(
                f"{file}, row {number} (line {line}): cannot be read as CSV in UTF-8 ({error})."
            ) from error


def _read_tfrecord(file: str, first_row: int, columns: Sequence[str]) -> Iterator[Row]:
    number = first_row
    compression = "GZIP" if file.lower().endswith(".gz") else ""
    try:
        for record in tf.data.TFRecordDataset(file, compression_type=compression):
            example = tf.train.Example.FromString(record.numpy())
            if number == first_row:
                check_columns(file, list(example.features.feature), columns)
            yield Row(file, number, None, [_feature_cell(example, name) for name in columns])
            number += 1
    except (tf.errors.OpError, DecodeError) as error:
        raise DataError(
            f"{file}, row {number}: cannot be read as a TFRecord of tf.train.Example ({error})."
        ) from error


def _feature_cell(example: tf.train.Example, name: str) -> Any:
    """Returns a feature as a cell: None if empty, a scalar for one value, else a list."""
    feature = example.features.feature[name]
    kind = feature.WhichOneof("kind")
    if kind is None:
        return None
    values = list(getattr(feature, kind).value)
    if not values:
        return None
    # An embedding of one dimension stays a list; ids and texts are scalars.
    return values if len(values) > 1 or kind == "float_list" else values[0]
