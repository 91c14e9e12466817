"""The client's own tensors, against TensorFlow's: both must read what either writes."""

import runpy
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from tensorflow.core.framework import tensor_pb2

from serving.client import protos, tensors

ROOT = Path(__file__).parents[2]
DTYPES = st.sampled_from(
    [
        *("float16", "float32", "float64", "int8", "int16", "int32", "int64", "uint8", "uint16"),
        *("uint32", "uint64", "bool", "complex64", "complex128"),
    ]
)
SHAPES = arrays.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4)
# What is not a number is compared as equal, so its bits are not what is tested here.
ARRAYS = DTYPES.flatmap(lambda dtype: arrays.arrays(dtype, SHAPES))


def as_theirs(message) -> tensor_pb2.TensorProto:
    return tensor_pb2.TensorProto.FromString(message.SerializeToString())


def as_ours(message: tensor_pb2.TensorProto):
    return protos.TensorProto.FromString(message.SerializeToString())


@settings(deadline=None)
@given(ARRAYS)
def test_tensorflow_reads_what_is_written(array):
    read = tf.make_ndarray(as_theirs(tensors.from_array(array)))
    np.testing.assert_array_equal(read, array)
    assert read.dtype == array.dtype


@settings(deadline=None)
@given(ARRAYS)
def test_what_tensorflow_writes_is_read(array):
    message = as_ours(tf.make_tensor_proto(array))
    np.testing.assert_array_equal(tensors.to_array(message), array)
    assert tensors.to_array(message).dtype == array.dtype
    # A list cannot tell the shape [0, 0] from [0].
    listed = np.asarray(tensors.to_list(message), array.dtype).reshape(array.shape)
    np.testing.assert_array_equal(listed, array)


@settings(deadline=None)
@given(st.lists(st.integers(-100, 100), max_size=4), st.integers(0, 3), st.data())
def test_typed_fields_with_and_without_repetition(values, more, data):
    """The form that TensorFlow Serving answers in; the last value stands for all after it."""
    dtype, field = data.draw(
        st.sampled_from(
            [
                *[("float32", "float_val"), ("float64", "double_val"), ("int64", "int64_val")],
                *[("int32", "int_val"), ("int8", "int_val"), ("int16", "int_val")],
            ]
        )
    )
    message = tensor_pb2.TensorProto(dtype=tf.dtypes.as_dtype(dtype).as_datatype_enum)
    message.tensor_shape.dim.add(size=len(values) + more)
    getattr(message, field).extend(values)
    expected = tf.make_ndarray(message)
    np.testing.assert_array_equal(tensors.to_array(as_ours(message)), expected)
    assert tensors.to_list(as_ours(message)) == expected.tolist()


@given(st.lists(st.lists(st.binary(max_size=4), min_size=2, max_size=2), max_size=3))
def test_strings_keep_their_zero_bytes(rows):
    message = tensors.from_array(np.array(rows, object).reshape(len(rows), 2))
    assert tf.make_ndarray(as_theirs(message)).tolist() == rows
    if rows:
        assert tensors.to_list(tensors.from_array(rows)) == rows
        assert tensors.to_array(tensors.from_array(rows)).tolist() == rows


@pytest.mark.parametrize("value", [True, 7, -1, 0.5])
def test_scalars(value):
    message = as_theirs(tensors.scalar(value))
    assert tf.make_ndarray(message) == value
    assert message.dtype == tf.make_tensor_proto(value).dtype


@pytest.mark.parametrize("values", [[1, 2], [2**40], [1.5], [[True], [False]], ["é"], [], 3])
def test_python_values_get_the_dtype_that_tensorflow_gives_them(values):
    expected = tf.make_tensor_proto(values)
    ours = as_theirs(tensors.from_array(values))
    assert ours.dtype == expected.dtype
    assert ours.tensor_shape == expected.tensor_shape
    np.testing.assert_array_equal(tf.make_ndarray(ours), tf.make_ndarray(expected))


def test_bfloat16():
    tensor = tf.constant([[1.5, -2.0]], tf.bfloat16)
    expected = tensor.numpy().astype(np.float32)
    message = as_ours(tf.make_tensor_proto(tensor.numpy()))
    np.testing.assert_array_equal(tensors.to_array(message), expected)


@pytest.mark.parametrize("values", [[[1.0], [1.0, 2.0]], [None], [{"a": 1}], [object()]])
def test_what_is_no_tensor(values):
    with pytest.raises((TypeError, ValueError)):
        tensors.from_array(values)


@pytest.mark.parametrize(
    "message",
    [
        protos.TensorProto(dtype=1, tensor_content=b"abc"),
        protos.TensorProto(dtype=1, float_val=[1.0, 2.0]),
        protos.TensorProto(dtype=20),
        protos.TensorProto(dtype=999),
        protos.TensorProto(),
    ],
)
def test_malformed_tensors_are_errors(message):
    with pytest.raises(ValueError):
        tensors.to_list(message)


def test_the_descriptors_are_those_of_the_installed_packages():
    """Fails when TensorFlow Serving's protocol was updated: run tools/make_client_protos.py."""
    made = runpy.run_path(str(ROOT / "tools" / "make_client_protos.py"))
    committed = made["OUTPUT"].read_bytes()
    assert made["descriptor_set"]().SerializeToString(deterministic=True) == committed
