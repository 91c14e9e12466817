"""Row-aligned files of precomputed features: a `.npy` array, and which row belongs to whom."""

import atexit
import os
import shutil
import tempfile
import zipfile
from collections.abc import Iterator
from typing import Any

import numpy as np
from apache_beam.io.filesystem import CompressionTypes
from apache_beam.io.filesystems import FileSystems

from bivrec_tf.errors import DataError
from components.content_encoder.content_config import PrecomputedModality
from components.table_example_gen import cells
from components.table_example_gen.sources import plan_slices, read_slice

_LISTS = (".npy", ".txt")


class FeatureFile:
    """A file of vectors, read a row at a time; a remote one is first copied to this machine.

    Args:
        modality: names the file and, if there is one, the file of ids.

    Raises:
        DataError: one of the files cannot be read, or is not what was expected.
    """

    def __init__(self, modality: PrecomputedModality):
        assert modality.file is not None
        self.path = modality.file
        self._array = _open_array(modality.file)
        if self._array.ndim != 2 or 0 in self._array.shape:
            raise DataError(
                f"{self.path}: the array has shape {self._array.shape}. Expected one row of "
                "numbers for every item, [items, numbers]."
            )
        if self._array.dtype.kind != "f" or self._array.dtype.itemsize not in (2, 4, 8):
            raise DataError(
                f"{self.path}: the array is of type {self._array.dtype}. Expected float16, "
                "float32 or float64; convert it with .astype('float32')."
            )
        self.row_of = _read_ids(modality, len(self)) if modality.ids is not None else None

    def __len__(self) -> int:
        return len(self._array)

    @property
    def dimension(self) -> int:
        """Length of the vectors."""
        return self._array.shape[1]

    def vector(self, row: int) -> np.ndarray:
        """Returns float32 [dimension].

        Raises:
            DataError: the row holds something that is not finite.
        """
        # A float64 beyond the range of float32 becomes infinite: refused like the rest.
        with np.errstate(over="ignore"):
            vector = np.asarray(self._array[row], np.float32)
        finite = np.isfinite(vector)
        if not finite.all():
            place = int(np.argmin(finite))
            raise DataError(
                f"{self.path}, row {row}: is not finite at position {place} "
                f"({self._array[row][place]}). Expected finite numbers (as float32); remove the "
                "row from the ids where there is no feature."
            )
        return vector

    def check_rows(self, table_rows: int | None) -> None:
        """Checks that a file without ids has a row for every row of the item table.

        Args:
            table_rows: how many the table has; None if that is not known.

        Raises:
            DataError: it has more or fewer.
        """
        if self.row_of is None and table_rows not in (None, len(self)):
            raise DataError(
                f"{self.path}: has {len(self):,} rows, but the item table has {table_rows:,}. "
                "Without `ids`, row i of the file belongs to row i of the table; name a file of "
                "ids in the modality, or write the features again."
            )


def _local_copy(path: str) -> str:
    """Returns the path of a file on this machine, copied there if it is remote."""
    if "://" not in path:
        return path
    folder = tempfile.mkdtemp(prefix="bivrec-features-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    copy = os.path.join(folder, path.rsplit("/", 1)[-1])
    with (
        FileSystems.open(path, compression_type=CompressionTypes.UNCOMPRESSED) as source,
        open(copy, "wb") as target,
    ):
        shutil.copyfileobj(source, target, 16 << 20)
    return copy


def _open_array(path: str) -> np.ndarray:
    """Maps an array into memory: what is not asked for is never read."""
    try:
        array = np.load(_local_copy(path), mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        reason = getattr(error, "strerror", None) or error
        raise DataError(
            f"{path}: cannot be read as .npy ({reason}). Expected an array of numbers as "
            "numpy.save writes it; objects (pickles) are never loaded."
        ) from error
    if not isinstance(array, np.ndarray):
        raise DataError(f"{path}: is an archive. Expected one array, as numpy.save writes it.")
    return array


def _read_ids(modality: PrecomputedModality, rows: int) -> dict[bytes, int]:
    """Returns item id -> row."""
    assert modality.ids is not None
    as_list = modality.ids.lower().endswith(_LISTS)
    row_of: dict[bytes, int] = {}
    for place, item_id, row in _list_ids(modality) if as_list else _table_ids(modality):
        if item_id in row_of:
            raise DataError(
                f"{place}: item id {item_id.decode('utf-8', 'replace')!r} stands there for the "
                "second time. Expected every item once."
            )
        if not 0 <= row < rows:
            raise DataError(
                f"{place}: names row {row}, but {modality.file} has rows 0 to {rows - 1}."
            )
        row_of[item_id] = row
    if as_list and len(row_of) != rows:
        raise DataError(
            f"{modality.ids}: has {len(row_of):,} ids, but {modality.file} has {rows:,} rows. "
            "Expected one id for every row."
        )
    return row_of


def _table_ids(modality: PrecomputedModality) -> Iterator[tuple[str, bytes, int]]:
    """Yields place, item id and row of a table with two columns."""
    assert modality.ids is not None
    columns = [modality.id_column, modality.row_column]
    for part in plan_slices(modality.ids, columns):
        for line in read_slice(part, columns):
            place = line.place()
            item_id = _identifier(line.cells[0], f"{place}, column '{modality.id_column}'")
            row = _row_number(line.cells[1], f"{place}, column '{modality.row_column}'")
            yield place, item_id, row


def _list_ids(modality: PrecomputedModality) -> Iterator[tuple[str, bytes, int]]:
    """Yields place, item id and row of a list with one id for a row."""
    assert modality.ids is not None
    path = modality.ids
    ids: Any
    if path.lower().endswith(".npy"):
        ids = _open_array(path)
        if ids.ndim != 1:
            raise DataError(f"{path}: has shape {ids.shape}. Expected one id for a row, [rows].")
        ids = ids.tolist()
    else:
        try:
            with FileSystems.open(path) as file:
                ids = file.read().decode("utf-8-sig").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"{path}: cannot be read as a list of ids ({error}).") from error
    for row, item_id in enumerate(ids):
        place = f"{path}, row {row}"
        yield place, _identifier(item_id, place), row


def _identifier(cell: Any, place: str) -> bytes:
    try:
        return cells.identifier(cell)
    except cells.CellError as error:
        raise DataError(f"{place}: {cell!r:.200} {error}.") from None


def _row_number(cell: Any, place: str) -> int:
    try:
        number = float(cell)
        if not isinstance(cell, bool) and number == int(number):
            return int(number)
    except (TypeError, ValueError, OverflowError):
        pass
    raise DataError(f"{place}: {cell!r:.200} is no row. Expected a whole number, counted from 0.")
