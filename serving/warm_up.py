"""Warm-up requests: what a server runs on a version before it takes requests for it.

The first request pays for what TensorFlow prepares lazily. TensorFlow Serving and the development
server read requests from a file beside the model and run them while a version loads; a request that
fails makes the version fail to load.
"""

import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import numpy.typing as npt
import tensorflow as tf
from google.protobuf.message import DecodeError
from tensorflow_serving.apis import predict_pb2, prediction_log_pb2

WARM_UP_FILE = os.path.join("assets.extra", "tf_serving_warmup_requests")
"""Where both servers look, beneath a version's folder."""

MAX_WARM_UP_REQUESTS = 1000
"""Both servers refuse a version with more."""


def write_warm_up_requests(
    version_directory: str | Path,
    model_name: str,
    requests: Iterable[tuple[str, Mapping[str, npt.ArrayLike]]],
) -> str:
    """Writes the file of warm-up requests of a version, in place of the one that is there.

    Give the shapes that clients send: TensorFlow prepares each shape on its own.

    Args:
        version_directory: The version's folder, which holds `saved_model.pb`; in a bucket, too.
        model_name: The name that the server gives the model.
        requests: For each request the signature's name, and arrays or nested lists by input name.
            Python floats are written as float32, ints as int32; arrays keep their dtype.

    Returns:
        The path of the file.

    Raises:
        ValueError: If there is no request or there are more than `MAX_WARM_UP_REQUESTS`, or an
            input is not a tensor.
        FileNotFoundError: If the folder holds no SavedModel.
    """
    directory = os.fspath(version_directory)
    if not tf.io.gfile.exists(os.path.join(directory, "saved_model.pb")):
        raise FileNotFoundError(f"{directory} holds no saved_model.pb: is it a version's folder?")
    records = [_record(model_name, signature, inputs) for signature, inputs in requests]
    if not 1 <= len(records) <= MAX_WARM_UP_REQUESTS:
        raise ValueError(
            f"{len(records)} warm-up requests: there must be 1 to {MAX_WARM_UP_REQUESTS}"
        )
    path = os.path.join(directory, WARM_UP_FILE)
    tf.io.gfile.makedirs(os.path.dirname(path))
    # Renamed when it is complete: a server may read at any time.
    unfinished = f"{path}.unfinished"
    with tf.io.TFRecordWriter(unfinished) as writer:
        for record in records:
            writer.write(record.SerializeToString())
    tf.io.gfile.rename(unfinished, path, overwrite=True)
    return path


def read_warm_up_requests(
    version_directory: str | Path,
) -> Iterator[prediction_log_pb2.PredictionLog]:
    """Yields the warm-up requests of a version, one after the other; none without the file.

    Raises:
        ValueError: If the file is damaged, or holds more than `MAX_WARM_UP_REQUESTS`.
    """
    path = Path(version_directory) / WARM_UP_FILE
    if not path.exists():
        return
    records = tf.data.TFRecordDataset(str(path)).as_numpy_iterator()
    for number in range(MAX_WARM_UP_REQUESTS + 1):
        try:
            record = next(records)
        except StopIteration:
            return
        except tf.errors.OpError as error:
            raise ValueError(
                f"{error.message}. Please verify your warmup data is in TFRecord format."
            ) from error
        if number == MAX_WARM_UP_REQUESTS:
            break
        try:
            yield prediction_log_pb2.PredictionLog.FromString(record)
        except DecodeError as error:
            raise ValueError(f"Failed to parse warmup record {number} from {path}") from error
    raise ValueError(
        f"Number of warmup records exceeds the maximum ({MAX_WARM_UP_REQUESTS}) at {path}"
    )


def _record(
    model_name: str, signature: str, inputs: Mapping[str, npt.ArrayLike]
) -> prediction_log_pb2.PredictionLog:
    request = predict_pb2.PredictRequest()
    request.model_spec.name = model_name
    request.model_spec.signature_name = signature
    for name, values in inputs.items():
        try:
            request.inputs[name].CopyFrom(tf.make_tensor_proto(values))
        except (TypeError, ValueError) as error:
            raise ValueError(f"input {name!r} of {signature!r} is not a tensor: {error}") from error
    log = prediction_log_pb2.PredictionLog()
    log.predict_log.request.CopyFrom(request)
    return log
