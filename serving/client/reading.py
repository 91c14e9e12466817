"""From the server's messages to `serving.answers`."""

from typing import Any

from bivrec_contract import features
from serving.answers import (
    Explanation,
    Interests,
    Recommendation,
    Recommendations,
    Signature,
    SimilarItem,
    SimilarItems,
    TensorDescription,
    VersionStatus,
)
from serving.client import tensors
from serving.client.protos import ModelState, SignatureDefMap


def recommendations(response: Any) -> list[Recommendations]:
    """Reads the answer of `recommend`, one element for each history."""
    names = (
        *(features.ITEM_IDS, features.SCORES, features.INTEREST),
        *(features.VIEW_SCORES, features.BECAUSE),
    )
    columns = [_output(response, name) for name in names]
    unknown = _output(response, features.UNKNOWN_ITEMS)
    return [
        Recommendations(
            items=tuple(
                Recommendation(
                    item_id.decode(), score, interest, id_score, mm_score, _texts(because)
                )
                for item_id, score, interest, (id_score, mm_score), because in zip(
                    *row, strict=True
                )
                if item_id
            ),
            model_version=response.model_spec.version.value,
            unknown_items=unknown_items,
        )
        for *row, unknown_items in zip(*columns, unknown, strict=True)
    ]


def explanations(response: Any, item_ids: list[str]) -> tuple[Explanation, ...]:
    """Reads the answer of `because` for one history."""
    (because,) = _output(response, features.BECAUSE)
    (weights,) = _output(response, features.BECAUSE_WEIGHTS)
    return tuple(
        Explanation(item_id, _texts(reasons), tuple(_beside(reasons, shares)))
        for item_id, reasons, shares in zip(item_ids, because, weights, strict=True)
    )


def similar_items(response: Any) -> SimilarItems:
    """Reads the answer of `similar_items` for one item."""
    (unknown,) = _output(response, features.UNKNOWN_ITEMS)
    views = {}
    for view in features.VIEWS:
        if features.similar_items_name(view) not in response.outputs:
            continue
        (item_ids,) = _output(response, features.similar_items_name(view))
        (scores,) = _output(response, features.similar_scores_name(view))
        views[view] = tuple(
            SimilarItem(item_id.decode(), score)
            for item_id, score in zip(item_ids, scores, strict=True)
            if item_id and not unknown
        )
    return SimilarItems(views, not unknown, response.model_spec.version.value)


def interests(response: Any) -> Interests:
    """Reads the answer of `interests` for one history."""
    (history,) = _output(response, features.HISTORY_ITEMS)
    vectors, allocation = {}, {}
    for view in features.VIEWS:
        if features.interests_name(view) not in response.outputs:
            continue
        (rows,) = _output(response, features.interests_name(view))
        vectors[view] = tuple(tuple(row) for row in rows)
        (rows,) = _output(response, features.allocation_name(view))
        allocation[view] = tuple(tuple(_beside(history, row)) for row in rows)
    return Interests(_texts(history), vectors, allocation, response.model_spec.version.value)


def versions(response: Any) -> tuple[VersionStatus, ...]:
    """Reads the state of every version, by ascending version."""
    return tuple(
        VersionStatus(status.version, ModelState[status.state].name, status.status.error_message)
        for status in sorted(response.model_version_status, key=lambda each: each.version)
    )


def signatures(response: Any) -> dict[str, Signature]:
    """Reads what the signatures take and give."""
    found = SignatureDefMap.FromString(response.metadata["signature_def"].value)
    return {
        name: Signature(
            inputs={
                key: _description(info, key in signature.defaults)
                for key, info in signature.inputs.items()
            },
            outputs={key: _description(info, False) for key, info in signature.outputs.items()},
        )
        for name, signature in found.signature_def.items()
    }


def _output(response: Any, name: str) -> Any:
    # Asking the message itself would give an empty tensor for a name that it does not hold.
    if name not in response.outputs:
        raise ValueError(f"the answer holds no output {name!r}")
    return tensors.to_list(response.outputs[name])


def _description(info: Any, optional: bool) -> TensorDescription:
    shape = info.tensor_shape
    return TensorDescription(
        dtype=tensors.dtype_name(info.dtype),
        shape=None if shape.unknown_rank else tuple(dimension.size for dimension in shape.dim),
        optional=optional,
    )


def _texts(values: list[bytes]) -> tuple[str, ...]:
    return tuple(value.decode() for value in values if value)


def _beside(keys: list[bytes], values: list[float]) -> list[float]:
    """Returns the values whose key is no padding."""
    return [value for key, value in zip(keys, values, strict=True) if key]
