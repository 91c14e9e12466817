"""What each method of a client sends and how its answer is read, whatever carries it."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import grpc

from bivrec_contract import features
from bivrec_contract.errors import ConfigError
from serving.answers import (
    Explanation,
    Interests,
    Recommendations,
    Signature,
    SimilarItems,
    VersionStatus,
)
from serving.client import protos, reading, tensors
from serving.errors import InvalidRequest, UnexpectedAnswer

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

Answer = TypeVar("Answer")

_LARGEST_K = 2**31 - 1

PREDICT = "/tensorflow.serving.PredictionService/Predict"
GET_MODEL_METADATA = "/tensorflow.serving.PredictionService/GetModelMetadata"
GET_MODEL_STATUS = "/tensorflow.serving.ModelService/GetModelStatus"
RESPONSES: Mapping[str, Any] = {
    PREDICT: protos.PredictResponse,
    GET_MODEL_METADATA: protos.GetModelMetadataResponse,
    GET_MODEL_STATUS: protos.GetModelStatusResponse,
}
"""The message that each method of the servers answers with."""


@dataclasses.dataclass(frozen=True)
class Call(Generic[Answer]):
    """One request, and how its response is read.

    Attributes:
        method: The full name of the method, a key of `RESPONSES`.
        request: The message.
        reader: Makes the answer from the response.
        target: The address that is called, for errors.
    """

    method: str
    request: Any
    reader: Callable[[Any], Answer]
    target: str

    def read(self, response: Any) -> Answer:
        """Reads the response.

        Raises:
            UnexpectedAnswer: If it is not what a model of this project answers.
        """
        try:
            return self.reader(response)
        except (IndexError, KeyError, TypeError, ValueError) as error:
            raise UnexpectedAnswer(
                str(error),
                code=grpc.StatusCode.UNKNOWN,
                target=self.target,
                advice="Is this model exported by this project, and not older than this client? "
                "metadata() tells what its signatures give.",
            ) from error


class Calls:
    """Checks arguments and makes the requests for one model. Arguments as for `RecommenderClient`.

    Every method raises `InvalidRequest` for arguments that no server could answer.
    """

    def __init__(
        self, target: str, model_name: str, version: int | None, version_label: str | None
    ):
        if version is not None and version_label is not None:
            raise ConfigError("give a version or a version_label, not both")
        self.target = target
        self._model_spec = protos.ModelSpec(name=model_name)
        if version is not None:
            self._model_spec.version.value = version
        if version_label is not None:
            self._model_spec.version_label = version_label

    def recommend(
        self,
        histories: Sequence[Sequence[str]],
        k: int,
        exclude: Sequence[Sequence[str]] | None,
        id_weight: float | None,
        filter_seen: bool | None,
        diversity: float | None,
        unavailable: Sequence[str],
    ) -> Call[list[Recommendations]]:
        """Makes the call of `recommend`."""
        inputs = {
            features.HISTORY: self._padded(features.HISTORY, histories),
            features.K: self._count(k),
        }
        # What is not set is left to the model, which has a default for each of these.
        if exclude is not None:
            if len(exclude) != len(histories):
                raise self.invalid(
                    f"exclude must hold one sequence for each history: there are {len(exclude)} "
                    f"for {len(histories)} histories"
                )
            inputs[features.EXCLUDE] = self._padded(features.EXCLUDE, exclude)
        if id_weight is not None:
            inputs[features.ID_WEIGHT] = self._fraction(features.ID_WEIGHT, id_weight)
        if filter_seen is not None:
            inputs[features.FILTER_SEEN] = tensors.scalar(bool(filter_seen))
        if diversity is not None:
            inputs[features.DIVERSITY] = self._fraction(features.DIVERSITY, diversity)
        if len(unavailable):
            self._check_items(features.UNAVAILABLE, unavailable)
            inputs[features.UNAVAILABLE] = tensors.strings(unavailable, [len(unavailable)])
        return self._predict(features.RECOMMEND, inputs, reading.recommendations)

    def because(
        self, history: Sequence[str], item_ids: Sequence[str]
    ) -> Call[tuple[Explanation, ...]]:
        """Makes the call of `because`."""
        inputs = {
            features.HISTORY: self._padded(features.HISTORY, [history]),
            features.ITEM_IDS: self._padded(features.ITEM_IDS, [item_ids]),
        }
        asked = list(item_ids)
        return self._predict(
            features.BECAUSE, inputs, lambda response: reading.explanations(response, asked)
        )

    def similar_items(self, item_id: str, k: int) -> Call[SimilarItems]:
        """Makes the call of `similar_items`."""
        self._check_items(features.ITEM_ID, [item_id])
        inputs = {features.ITEM_ID: tensors.strings([item_id], [1]), features.K: self._count(k)}
        return self._predict(features.SIMILAR_ITEMS, inputs, reading.similar_items)

    def interests(self, history: Sequence[str]) -> Call[Interests]:
        """Makes the call of `interests`."""
        inputs = {features.HISTORY: self._padded(features.HISTORY, [history])}
        return self._predict(features.INTERESTS, inputs, reading.interests)

    def predict(
        self, signature: str, inputs: "Mapping[str, npt.ArrayLike]"
    ) -> "Call[dict[str, np.ndarray]]":
        """Makes the call of any signature."""
        messages = {}
        for name, values in inputs.items():
            try:
                messages[name] = tensors.from_array(values)
            except (TypeError, ValueError) as error:
                raise self.invalid(f"input {name!r} is not a tensor: {error}") from error
        return self._predict(
            signature,
            messages,
            lambda response: {
                name: tensors.to_array(message) for name, message in response.outputs.items()
            },
        )

    def status(self) -> Call[tuple[VersionStatus, ...]]:
        """Makes the call of GetModelStatus."""
        request = protos.GetModelStatusRequest(model_spec=self._model_spec)
        return Call(GET_MODEL_STATUS, request, reading.versions, self.target)

    def metadata(self) -> Call[dict[str, Signature]]:
        """Makes the call of GetModelMetadata."""
        request = protos.GetModelMetadataRequest(
            model_spec=self._model_spec, metadata_field=["signature_def"]
        )
        return Call(GET_MODEL_METADATA, request, reading.signatures, self.target)

    def invalid(self, message: str) -> InvalidRequest:
        """Returns the error for arguments that are not sent."""
        return InvalidRequest(
            message,
            code=grpc.StatusCode.INVALID_ARGUMENT,
            target=self.target,
            advice="Nothing was sent to the server.",
        )

    def _predict(
        self, signature: str, inputs: Mapping[str, Any], reader: Callable[[Any], Answer]
    ) -> Call[Answer]:
        request = protos.PredictRequest(model_spec=self._model_spec, inputs=inputs)
        request.model_spec.signature_name = signature
        return Call(PREDICT, request, reader, self.target)

    def _count(self, k: int) -> Any:
        # An integer of numpy is one, too, and is no `int`.
        if isinstance(k, bool) or not hasattr(k, "__index__"):
            raise self.invalid(f"k must be a whole number, not {k!r}")
        if not 1 <= k <= _LARGEST_K:
            raise self.invalid(f"k must be at least 1 and at most {_LARGEST_K}, not {k}")
        return tensors.scalar(k.__index__())

    def _fraction(self, name: str, value: float) -> Any:
        if not 0 <= value <= 1:
            raise self.invalid(f"{name} must be between 0 and 1, not {value!r}")
        return tensors.scalar(float(value))

    def _padded(self, name: str, rows: Sequence[Sequence[str]]) -> Any:
        """Returns string [n, L], the rows padded with "" on the right."""
        for row in rows:
            self._check_items(name, row)
        length = max((len(row) for row in rows), default=0)
        values = [item_id for row in rows for item_id in (*row, *[""] * (length - len(row)))]
        return tensors.strings(values, [len(rows), length])

    def _check_items(self, name: str, item_ids: Sequence[str]) -> None:
        if isinstance(item_ids, str | bytes):
            raise self.invalid(f"{name} must be a list of item ids, not the single {item_ids!r}")
        for item_id in item_ids:
            if not isinstance(item_id, str):
                raise self.invalid(
                    f"{name} must hold item ids as strings, not {item_id!r} "
                    f"({type(item_id).__name__}): write {str(item_id)!r}"
                )
            if not item_id:
                raise self.invalid(f'{name} must not hold "": it stands for padding')
