"""What a client gets: plain, frozen objects instead of tensors and messages."""

import dataclasses
from collections.abc import Mapping

import tensorflow as tf
from tensorflow.core.protobuf import meta_graph_pb2
from tensorflow_serving.apis import predict_pb2

from bivrec_tf import features


@dataclasses.dataclass(frozen=True)
class Recommendation:
    """One recommended item.

    Attributes:
        item_id: The item.
        score: What the ranking is by; higher is better.
        interest: The index of the user's interest that found the item, or -1 if a popularity
            list did, because nothing is known about the user.
        id_score: The calibrated score of the id view.
        mm_score: The calibrated score of the multimodal view.
        because: Up to three items of the history behind the recommendation, strongest first.
    """

    item_id: str
    score: float
    interest: int
    id_score: float
    mm_score: float
    because: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Recommendations:
    """The answer for one history.

    Attributes:
        items: Best first; fewer than asked for if fewer items could be recommended.
        model_version: The version that answered.
        unknown_items: How many ids of the history the model does not know.
    """

    items: tuple[Recommendation, ...]
    model_version: int
    unknown_items: int


@dataclasses.dataclass(frozen=True)
class VersionStatus:
    """One version as the server sees it.

    Attributes:
        version: The version number.
        state: `START`, `LOADING`, `AVAILABLE`, `UNLOADING` or `END`.
        error: Why it could not be loaded; empty unless that is so.
    """

    version: int
    state: str
    error: str


@dataclasses.dataclass(frozen=True)
class TensorDescription:
    """What an input takes or an output gives.

    Attributes:
        dtype: A numpy-like name: `string`, `float32`, `int32` and so on.
        shape: -1 stands for any size; None for a shape of any rank.
        optional: Whether a request may leave the input out.
    """

    dtype: str
    shape: tuple[int, ...] | None
    optional: bool


@dataclasses.dataclass(frozen=True)
class Signature:
    """Inputs and outputs of one signature, by name."""

    inputs: Mapping[str, TensorDescription]
    outputs: Mapping[str, TensorDescription]


def describe_tensor(info: meta_graph_pb2.TensorInfo, optional: bool) -> TensorDescription:
    """Returns what a signature says about an input or output."""
    shape = info.tensor_shape
    return TensorDescription(
        dtype=tf.dtypes.as_dtype(info.dtype).name if info.dtype else "unknown",
        shape=None if shape.unknown_rank else tuple(dimension.size for dimension in shape.dim),
        optional=optional,
    )


def read_recommendations(response: predict_pb2.PredictResponse) -> list[Recommendations]:
    """Returns the answer of the signature `recommend`, one element for each history."""
    outputs = {name: tf.make_ndarray(proto) for name, proto in response.outputs.items()}
    version = response.model_spec.version.value
    item_ids, because = outputs[features.ITEM_IDS], outputs[features.BECAUSE]
    scores, views = outputs[features.SCORES], outputs[features.VIEW_SCORES]
    interests, unknown = outputs[features.INTEREST], outputs[features.UNKNOWN_ITEMS]
    answers = []
    for row in range(len(item_ids)):
        items = tuple(
            Recommendation(
                item_id=item_id.decode(),
                score=float(scores[row, rank]),
                interest=int(interests[row, rank]),
                id_score=float(views[row, rank, 0]),
                mm_score=float(views[row, rank, 1]),
                because=tuple(each.decode() for each in because[row, rank] if each),
            )
            for rank, item_id in enumerate(item_ids[row])
            if item_id
        )
        answers.append(Recommendations(items, version, int(unknown[row])))
    return answers
