"""What a client gets: plain, frozen objects instead of tensors and messages."""

import dataclasses
from collections.abc import Mapping


@dataclasses.dataclass(frozen=True)
class Recommendation:
    """One recommended item.

    Attributes:
        item_id: The item.
        score: What the ranking is by; higher is better. With `diversity`, what stands before an
            item counts as well, and the scores need not fall.
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
class Explanation:
    """What in a history speaks for one item.

    Attributes:
        item_id: The item that was asked about.
        because: Up to three items of the history, strongest first.
        weights: The share of each of them; all shares of a history add up to 1.
    """

    item_id: str
    because: tuple[str, ...]
    weights: tuple[float, ...]


@dataclasses.dataclass(frozen=True)
class SimilarItem:
    """One item that is like another.

    Attributes:
        item_id: The item.
        similarity: The cosine similarity, from -1 to 1.
    """

    item_id: str
    similarity: float


@dataclasses.dataclass(frozen=True)
class SimilarItems:
    """The items nearest to one.

    Attributes:
        views: Nearest first, by view (`id`: bought by the same people, `mm`: alike in content);
            a model has one view or both.
        known: Whether the model knows the item that was asked about; the lists are empty if not.
        model_version: The version that answered.
    """

    views: Mapping[str, tuple[SimilarItem, ...]]
    known: bool
    model_version: int


@dataclasses.dataclass(frozen=True)
class Interests:
    """What a model sees in a history.

    Attributes:
        history_items: The L items of the history that the model knows and looked at, oldest first.
        vectors: By view, one vector for each of the K interests, K x D.
        allocation: By view, how strongly each interest attends to each of `history_items`, K x L.
        model_version: The version that answered.
    """

    history_items: tuple[str, ...]
    vectors: Mapping[str, tuple[tuple[float, ...], ...]]
    allocation: Mapping[str, tuple[tuple[float, ...], ...]]
    model_version: int


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
