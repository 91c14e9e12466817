"""A typed client for the exported model, behind TensorFlow Serving or the development server."""

import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence
from types import TracebackType
from typing import Self

import grpc
import numpy as np
import numpy.typing as npt
import tensorflow as tf
from tensorflow.core.framework import tensor_pb2
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)

from bivrec_tf import features
from serving.answers import (
    Recommendation,
    Recommendations,
    Signature,
    TensorDescription,
    VersionStatus,
    describe_tensor,
    read_recommendations,
)
from serving.errors import (
    DeadlineExceeded,
    InvalidRequest,
    ModelNotFound,
    ServerUnavailable,
    ServingError,
    from_rpc_error,
)

__all__ = [
    "DeadlineExceeded",
    "InvalidRequest",
    "ModelNotFound",
    "Recommendation",
    "Recommendations",
    "RecommenderClient",
    "ServerUnavailable",
    "ServingError",
    "Signature",
    "TensorDescription",
    "VersionStatus",
]

_MODELS_OWN_ID_WEIGHT = -1.0
_LARGEST_K = 2**31 - 1
_READY_POLL_SECONDS = 0.1
_LOOPBACK_HOSTS = ("localhost", "127.0.0.1", "[::1]")


class RecommenderClient:
    """Calls one model on one server. A context manager; safe to share between threads.

    Every method raises a `serving.errors.ServingError` when a call fails: `ModelNotFound`,
    `InvalidRequest`, `DeadlineExceeded`, `ServerUnavailable`, or the base class for the rest.

    Args:
        target: The server's address, like `localhost:8500`.
        model_name: The name under which the server serves the model.
        timeout: How many seconds a call may take.
        version: The version to call, or None for the newest that is loaded.
        max_message_bytes: The largest request or response.
    """

    def __init__(
        self,
        target: str,
        model_name: str = "recommender",
        timeout: float = 2.0,
        *,
        version: int | None = None,
        max_message_bytes: int = 64 * 2**20,
    ):
        self.target = target
        self.model_name = model_name
        self.timeout = timeout
        self.version = version
        options: list[tuple[str, int]] = [
            ("grpc.max_receive_message_length", max_message_bytes),
            ("grpc.max_send_message_length", max_message_bytes),
            # A restarted server is found again within about a second.
            ("grpc.initial_reconnect_backoff_ms", 100),
            ("grpc.max_reconnect_backoff_ms", 1000),
        ]
        if target.rpartition(":")[0] in _LOOPBACK_HOSTS:
            # A proxy, set for the outside world, cannot reach this machine's own ports.
            options.append(("grpc.enable_http_proxy", 0))
        self._channel = grpc.insecure_channel(target, options)
        self._prediction = prediction_service_pb2_grpc.PredictionServiceStub(self._channel)
        self._model = model_service_pb2_grpc.ModelServiceStub(self._channel)

    def close(self) -> None:
        """Closes the connection."""
        self._channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exception_type: type[BaseException] | None,
        exception: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def recommend(
        self,
        history: Sequence[str],
        k: int = 10,
        exclude: Sequence[str] = (),
        id_weight: float | None = None,
        filter_seen: bool = True,
    ) -> Recommendations:
        """Recommends items to one user.

        Args:
            history: Item ids, oldest first. Unknown ids are ignored and counted; an empty
                history gets the popularity list.
            k: How many items, at least 1.
            exclude: Item ids never to recommend.
            id_weight: The weight of the id view in [0, 1]; None for the model's own choice.
            filter_seen: Whether the items of the history are never recommended.
        """
        answers = self.recommend_many([history], k, [exclude], id_weight, filter_seen)
        return answers[0]

    def recommend_many(
        self,
        histories: Sequence[Sequence[str]],
        k: int = 10,
        exclude: Sequence[Sequence[str]] | None = None,
        id_weight: float | None = None,
        filter_seen: bool = True,
    ) -> list[Recommendations]:
        """Recommends items to many users in one request.

        Args:
            histories: One history for each user, as for `recommend`; of any lengths.
            k: How many items for each user, at least 1.
            exclude: Item ids never to recommend, one sequence for each user; None for nothing.
            id_weight: The weight of the id view in [0, 1]; None for the model's own choice.
            filter_seen: Whether the items of a history are never recommended to its user.

        Returns:
            One answer for each history, in their order.
        """
        inputs = self._recommend_inputs(histories, k, exclude, id_weight, filter_seen)
        if len(histories) == 0:
            return []
        response = self._predict(features.RECOMMEND, inputs)
        return read_recommendations(response)

    def predict(self, signature: str, inputs: Mapping[str, npt.ArrayLike]) -> dict[str, np.ndarray]:
        """Calls any signature of the model.

        Args:
            signature: Its name, such as `serving_default`.
            inputs: Arrays or nested lists by input name. Python floats are sent as float32, ints
                as int32; arrays keep their dtype, and the server does not convert it.

        Returns:
            The outputs by name; strings as object arrays of bytes.
        """
        protos = {}
        for name, values in inputs.items():
            try:
                protos[name] = tf.make_tensor_proto(values)
            except (TypeError, ValueError) as error:
                raise self._invalid(f"input {name!r} is not a tensor: {error}") from error
        response = self._predict(signature, protos)
        return {name: tf.make_ndarray(proto) for name, proto in response.outputs.items()}

    def status(self) -> tuple[VersionStatus, ...]:
        """Returns the state of every version that the server knows, by ascending version."""
        return self._status(self.timeout, wait_for_ready=False)

    def metadata(self) -> dict[str, Signature]:
        """Returns what the signatures of the model take and give, by name."""
        request = get_model_metadata_pb2.GetModelMetadataRequest(
            model_spec=self._model_spec(), metadata_field=["signature_def"]
        )
        with self._errors():
            response = self._prediction.GetModelMetadata(request, timeout=self.timeout)
        signatures = get_model_metadata_pb2.SignatureDefMap()
        response.metadata["signature_def"].Unpack(signatures)
        return {
            name: Signature(
                inputs={
                    key: describe_tensor(info, key in signature.defaults)
                    for key, info in signature.inputs.items()
                },
                outputs={
                    key: describe_tensor(info, False) for key, info in signature.outputs.items()
                },
            )
            for name, signature in signatures.signature_def.items()
        }

    def wait_until_ready(self, timeout: float = 60.0) -> None:
        """Waits until the server answers and has the model loaded.

        Args:
            timeout: How many seconds to wait at most.

        Raises:
            ModelNotFound: If the server answers, but does not have the model in time.
            ServerUnavailable: If no server answers in time.
        """
        deadline = time.monotonic() + timeout
        problem: Exception | None = None
        while True:
            remaining = deadline - time.monotonic()
            if remaining <= 0:
                break
            try:
                versions = self._status(remaining, wait_for_ready=True)
            except (ModelNotFound, ServerUnavailable) as error:
                problem = error
            except DeadlineExceeded:
                break
            else:
                if any(version.state == "AVAILABLE" for version in versions):
                    return
            time.sleep(min(_READY_POLL_SECONDS, max(0.0, deadline - time.monotonic())))
        if isinstance(problem, ModelNotFound):
            raise problem
        raise ServerUnavailable(
            f"not ready after {timeout:g} seconds",
            code=grpc.StatusCode.UNAVAILABLE,
            target=self.target,
            advice="See whether the server runs and listens at this address, and its log.",
        ) from problem

    def _recommend_inputs(
        self,
        histories: Sequence[Sequence[str]],
        k: int,
        exclude: Sequence[Sequence[str]] | None,
        id_weight: float | None,
        filter_seen: bool,
    ) -> dict[str, tensor_pb2.TensorProto]:
        if isinstance(k, bool) or not isinstance(k, int | np.integer):
            raise self._invalid(f"k must be a whole number, not {k!r}")
        if not 1 <= k <= _LARGEST_K:
            raise self._invalid(f"k must be at least 1, not {k}")
        if id_weight is None:
            id_weight = _MODELS_OWN_ID_WEIGHT
        elif not 0 <= id_weight <= 1:
            raise self._invalid(f"id_weight must be between 0 and 1, not {id_weight!r}")
        if exclude is None:
            exclude = [()] * len(histories)
        if len(exclude) != len(histories):
            raise self._invalid(
                f"exclude must hold one sequence for each history: there are {len(exclude)} for "
                f"{len(histories)} histories"
            )
        return {
            features.HISTORY: self._padded(features.HISTORY, histories),
            features.EXCLUDE: self._padded(features.EXCLUDE, exclude),
            features.K: tf.make_tensor_proto(int(k), tf.int32),
            features.ID_WEIGHT: tf.make_tensor_proto(float(id_weight), tf.float32),
            features.FILTER_SEEN: tf.make_tensor_proto(bool(filter_seen), tf.bool),
        }

    def _padded(self, name: str, rows: Sequence[Sequence[str]]) -> tensor_pb2.TensorProto:
        """Returns string [n, L], the rows padded with "" on the right."""
        for row in rows:
            if isinstance(row, str | bytes):
                raise self._invalid(f"{name} must be a list of item ids, not the single {row!r}")
            for item_id in row:
                if not isinstance(item_id, str):
                    raise self._invalid(
                        f"{name} must hold item ids as strings, not {item_id!r} "
                        f"({type(item_id).__name__}): write {str(item_id)!r}"
                    )
                if not item_id:
                    raise self._invalid(f'{name} must not hold "": it stands for padding')
        length = max((len(row) for row in rows), default=0)
        proto = tensor_pb2.TensorProto(dtype=tf.string.as_datatype_enum)
        for size in (len(rows), length):
            proto.tensor_shape.dim.add(size=size)
        for row in rows:
            proto.string_val.extend(item_id.encode() for item_id in row)
            proto.string_val.extend([b""] * (length - len(row)))
        return proto

    def _predict(
        self, signature: str, inputs: Mapping[str, tensor_pb2.TensorProto]
    ) -> predict_pb2.PredictResponse:
        request = predict_pb2.PredictRequest(model_spec=self._model_spec(), inputs=inputs)
        request.model_spec.signature_name = signature
        with self._errors():
            return self._prediction.Predict(request, timeout=self.timeout)

    def _status(self, timeout: float, wait_for_ready: bool) -> tuple[VersionStatus, ...]:
        request = get_model_status_pb2.GetModelStatusRequest(model_spec=self._model_spec())
        with self._errors():
            response = self._model.GetModelStatus(
                request, timeout=timeout, wait_for_ready=wait_for_ready
            )
        state_name = get_model_status_pb2.ModelVersionStatus.State.Name
        return tuple(
            VersionStatus(status.version, state_name(status.state), status.status.error_message)
            for status in sorted(response.model_version_status, key=lambda each: each.version)
        )

    def _model_spec(self) -> model_pb2.ModelSpec:
        model_spec = model_pb2.ModelSpec(name=self.model_name)
        if self.version is not None:
            model_spec.version.value = self.version
        return model_spec

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except grpc.RpcError as error:
            raise from_rpc_error(error, self.target) from error

    def _invalid(self, message: str) -> InvalidRequest:
        return InvalidRequest(
            message,
            code=grpc.StatusCode.INVALID_ARGUMENT,
            target=self.target,
            advice="Nothing was sent to the server.",
        )
