"""Large values on disk between two steps, so that only pointers go through Beam's shuffle.

Runners on one machine keep what they shuffle in memory: a catalogue's vectors and pictures must
not be there. A writer sorts what it holds by partition and writes it to one file; who gathers a
partition reads its range of every file.
"""

import struct
import uuid
import zlib
from collections.abc import Iterable, Iterator
from typing import BinaryIO, NamedTuple

from apache_beam.io.filesystem import CompressionTypes
from apache_beam.io.filesystems import FileSystems

PARTITIONS = 64
_BUFFER_BYTES = 32 << 20
# Length of the item id, tag, length of the value.
_HEAD = struct.Struct("<HBI")


# A range of bytes in a file: path, offset, length. A plain tuple, which Beam encodes compactly.
Pointer = tuple[str, int, int]


class Entry(NamedTuple):
    """One value of an item.

    Attributes:
        item_id: whose.
        tag: which value, 0 to 255.
        value: the bytes.
    """

    item_id: bytes
    tag: int
    value: bytes


class SpillWriter:
    """Gathers entries, and writes them out sorted by partition.

    Args:
        directory: where to; must be seen by all workers.
    """

    def __init__(self, directory: str):
        self._directory = directory
        self._parts: dict[int, bytearray] = {}
        self._size = 0

    def add(self, entry: Entry) -> Iterator[tuple[int, Pointer]]:
        """Takes an entry; yields (partition, pointer) when that made it write a file."""
        partition = zlib.crc32(entry.item_id) % PARTITIONS
        part = self._parts.setdefault(partition, bytearray())
        before = len(part)
        part += _HEAD.pack(len(entry.item_id), entry.tag, len(entry.value))
        part += entry.item_id
        part += entry.value
        self._size += len(part) - before
        if self._size >= _BUFFER_BYTES:
            yield from self.flush()

    def flush(self) -> Iterator[tuple[int, Pointer]]:
        """Writes what is held, and yields (partition, pointer) for each of its partitions."""
        if not self._parts:
            return
        path = FileSystems.join(self._directory, f"values-{uuid.uuid4().hex}")
        pointers = []
        offset = 0
        with _create(path) as file:
            for partition, part in sorted(self._parts.items()):
                file.write(bytes(part))
                pointers.append((partition, (path, offset, len(part))))
                offset += len(part)
        self._parts, self._size = {}, 0
        yield from pointers


def read_entries(pointers: Iterable[Pointer]) -> Iterator[Entry]:
    """Yields the entries of one partition, in the order of the pointers."""
    for pointer in pointers:
        data = read_range(pointer)
        place = 0
        while place < len(data):
            id_length, tag, value_length = _HEAD.unpack_from(data, place)
            begin = place + _HEAD.size
            place = begin + id_length + value_length
            yield Entry(data[begin : begin + id_length], tag, data[begin + id_length : place])


class BlobWriter:
    """Writes large values one after the other to one file, which must be closed before reading.

    Args:
        directory: where to; must be seen by all workers.
    """

    def __init__(self, directory: str):
        self._path = FileSystems.join(directory, f"blobs-{uuid.uuid4().hex}")
        self._file: BinaryIO | None = None
        self._offset = 0

    def add(self, value: bytes) -> Pointer:
        """Appends a value and returns where it will be."""
        if self._file is None:
            self._file = _create(self._path)
        self._file.write(value)
        pointer = (self._path, self._offset, len(value))
        self._offset += len(value)
        return pointer

    def close(self) -> None:
        """Makes the values readable."""
        if self._file is not None:
            self._file.close()


def read_range(pointer: Pointer) -> bytes:
    """Returns the bytes that a pointer tells."""
    path, offset, length = pointer
    with FileSystems.open(path, compression_type=CompressionTypes.UNCOMPRESSED) as file:
        file.seek(offset)
        return file.read(length)


def _create(path: str) -> BinaryIO:
    return FileSystems.create(path, compression_type=CompressionTypes.UNCOMPRESSED)
