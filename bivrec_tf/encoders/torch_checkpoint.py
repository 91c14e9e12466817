"""Reads the tensors of a checkpoint of PyTorch's first file format without PyTorch.

Such a file is a sequence of pickles, followed by the raw numbers of every storage. A pickle can
name any function to be called while it is read; here nothing can be called but what a dictionary
of tensors is made of, and everything else in the file is refused.
"""

import collections
import math
import pickle
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from bivrec_tf.errors import DataError

_MAGIC_NUMBER = 0x1950A86A20F9469CFC6C
_PROTOCOL_VERSION = 1001
_DATA_TYPES = {
    "FloatStorage": np.dtype("<f4"),
    "DoubleStorage": np.dtype("<f8"),
    "HalfStorage": np.dtype("<f2"),
    "LongStorage": np.dtype("<i8"),
    "IntStorage": np.dtype("<i4"),
    "ShortStorage": np.dtype("<i2"),
    "CharStorage": np.dtype("i1"),
    "ByteStorage": np.dtype("u1"),
    "BoolStorage": np.dtype("?"),
}


class _Storage(NamedTuple):
    key: str
    data_type: np.dtype
    size: int


class _Tensor(NamedTuple):
    storage: Any
    offset: Any
    shape: Any
    strides: Any
    requires_gradient: Any = None
    hooks: Any = None
    metadata: Any = None


class _Refused(Exception):
    """The file holds something other than a dictionary of tensors."""


class _TensorUnpickler(pickle.Unpickler):
    """Builds dictionaries and descriptions of tensors, and calls nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return collections.OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _Tensor
        if module == "torch" and name in _DATA_TYPES:
            return _DATA_TYPES[name]
        raise _Refused(f"it names {module}.{name}, which is no part of a dictionary of tensors")

    def persistent_load(self, pid: Any) -> _Storage:
        match pid:
            case ("storage", np.dtype() as data_type, str(key), str(), int(size), None):
                if size >= 0:
                    return _Storage(key, data_type, size)
        raise _Refused(f"it refers to {str(pid)[:100]!r}, which is no whole storage")


def read_torch_checkpoint(path: Path) -> dict[str, np.ndarray]:
    """Returns the tensors of a state dictionary by name.

    Args:
        path: file written by `torch.save(module.state_dict(), path)` before version 1.6 or with
            `_use_new_zipfile_serialization=False`, on a little-endian machine.

    Raises:
        DataError: the file is damaged, or holds anything but named tensors.
    """
    try:
        with path.open("rb") as file:
            return _read(file, path.stat().st_size)
    except _Refused as refusal:
        reason = str(refusal)
    except Exception as error:  # A damaged pickle can raise anything.
        reason = f"it cannot be read ({type(error).__name__}: {error})"
    raise DataError(
        f"{path}: not accepted as a PyTorch checkpoint: {reason}. Expected the named tensors of "
        "one model in the format before PyTorch 1.6; install or download the file again."
    )


def _read(file: BinaryIO, file_size: int) -> dict[str, np.ndarray]:
    if _TensorUnpickler(file).load() != _MAGIC_NUMBER:
        raise _Refused("it does not begin as one")
    if _TensorUnpickler(file).load() != _PROTOCOL_VERSION:
        raise _Refused("its format has another version")
    system = _TensorUnpickler(file).load()
    if not isinstance(system, dict) or system.get("little_endian") is not True:
        raise _Refused("its numbers are not little-endian")
    tensors = _TensorUnpickler(file).load()
    keys = _TensorUnpickler(file).load()
    if not isinstance(tensors, dict) or not all(
        isinstance(name, str) and isinstance(tensor, _Tensor) for name, tensor in tensors.items()
    ):
        raise _Refused("it holds other things than named tensors")
    storages = _described_storages(tensors)
    if not isinstance(keys, list) or sorted(keys) != sorted(storages):
        raise _Refused("its list of storages does not fit its tensors")
    values = {key: _read_storage(file, storages[key], file_size) for key in keys}
    return {name: _make_array(name, tensor, values) for name, tensor in tensors.items()}


def _described_storages(tensors: dict[str, _Tensor]) -> dict[str, _Storage]:
    storages: dict[str, _Storage] = {}
    for name, tensor in tensors.items():
        storage = tensor.storage
        if not isinstance(storage, _Storage):
            raise _Refused(f"tensor '{name}' has no storage")
        if storages.setdefault(storage.key, storage) != storage:
            raise _Refused(f"storage {storage.key} is described in two ways")
    return storages


def _read_storage(file: BinaryIO, storage: _Storage, file_size: int) -> np.ndarray:
    size = int.from_bytes(file.read(8), "little", signed=True)
    if size != storage.size:
        raise _Refused(f"storage {storage.key} holds {size} numbers, described are {storage.size}")
    # Before anything of that size is allocated.
    byte_count = size * storage.data_type.itemsize
    if byte_count > file_size - file.tell():
        raise _Refused(f"it ends within storage {storage.key}")
    return np.frombuffer(file.read(byte_count), storage.data_type)


def _make_array(name: str, tensor: _Tensor, values: dict[str, np.ndarray]) -> np.ndarray:
    numbers = values[tensor.storage.key]
    offset, shape, strides = tensor.offset, tensor.shape, tensor.strides
    described = isinstance(shape, tuple) and isinstance(strides, tuple)
    if not described or not all(
        isinstance(number, int) and number >= 0 for number in (offset, *shape, *strides)
    ):
        raise _Refused(f"tensor '{name}' has no valid shape")
    count = math.prod(shape)
    last = offset + sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True))
    # Overlapping elements could make a giant of a few numbers.
    if count > numbers.size or (count and last >= numbers.size):
        raise _Refused(f"tensor '{name}' of shape {shape} reaches beyond its storage")
    if not count:
        return np.zeros(shape, numbers.dtype)
    view = np.lib.stride_tricks.as_strided(
        numbers[offset:], shape, [stride * numbers.itemsize for stride in strides]
    )
    return view.copy()
