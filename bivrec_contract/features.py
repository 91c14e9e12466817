"""The contract: names, dtypes and shapes of every feature that crosses a wall.

Four walls are crossed: the two user tables, the sequence examples that `SequenceBuilder` writes,
the item features that `ContentEncoder` writes, and the signatures of the exported model. This
module imports nothing heavy, so that a client can read it without TensorFlow.
"""

from typing import Final

# --- User tables, as read: one tf.train.Example for a row, canonical column names ---------------
USER_ID: Final = "user_id"
"""bytes [1]."""
ITEM_ID: Final = "item_id"
"""bytes [1]."""
TIMESTAMP: Final = "timestamp"
"""int64 [1], Unix seconds."""
ROW: Final = "row"
"""int64 [1], 0-based position in the table: breaks ties between equal timestamps."""
SPLIT: Final = "split"
"""bytes [1], optional, one of `train`, `validation`, `test`: a split that the data brings along."""

# --- Sequence examples, written by SequenceBuilder ---------------------------------------------
HISTORY: Final = "history"
"""bytes [0..], item ids, oldest first. In `train`: the items of the window before the targets."""
HISTORY_TIMESTAMPS: Final = "history_timestamps"
"""int64, aligned with `history`."""
TARGET: Final = "target"
"""bytes [1..], item ids in order of time. In `train` every one of them is predicted from all that
stands before it in `history + target`; elsewhere they are a set predicted from `history`."""
HISTORY_LENGTH_BUCKET: Final = "history_length_bucket"
"""bytes [1], one of `HISTORY_LENGTH_BUCKETS`."""
TARGET_POPULARITY: Final = "target_popularity"
"""bytes [1], one of `TARGET_POPULARITIES`."""
IS_COLD: Final = "is_cold"
"""int64 [1], 1 if any target never occurs in the training split."""
EXAMPLE_WEIGHT: Final = "example_weight"
"""float [1], always 1: model analysis wants a label for every output that it averages."""

HISTORY_LENGTH_BUCKETS: Final = ("0", "1-5", "6-20", "21-50", "51+")
TARGET_POPULARITIES: Final = ("head", "middle", "tail", "cold", "mixed")
"""`head`: the most popular items that make up half of the training interactions; `middle`: the
next 30 %; `tail`: the rest; `cold`: never in training; `mixed`: targets of more than one kind."""

TRAIN_SPLIT: Final = "train"
VALIDATION_SPLIT: Final = "validation"
TEST_SPLIT: Final = "test"
SPLITS: Final = (TRAIN_SPLIT, VALIDATION_SPLIT, TEST_SPLIT)

# --- Item features, written by ContentEncoder --------------------------------------------------
# For every modality M: float [dimension] under M, and int64 [1] under presence_name(M).


def presence_name(modality: str) -> str:
    """Returns the name of the feature that tells whether an item has `modality` (int64, 0 or 1)."""
    return f"{modality}_present"


VIEWS: Final = ("id", "mm")
"""The two views, in the order of the last axis of `view_scores`."""

# --- Signatures of the exported model ----------------------------------------------------------
SERVING_DEFAULT: Final = "serving_default"
RECOMMEND: Final = "recommend"
SIMILAR_ITEMS: Final = "similar_items"
INTERESTS: Final = "interests"
EXAMPLES: Final = "examples"
EVALUATE: Final = "evaluate"
TRANSFORM_FEATURES: Final = "transform_features"

EXCLUDE: Final = "exclude"
"""string [n, E]: item ids never to recommend; "" is padding."""
UNAVAILABLE: Final = "unavailable"
"""string [U]: item ids that nobody is recommended in this request; "" is padding."""
K: Final = "k"
"""int32 scalar: how many recommendations, from 1 to the maximum that the model has."""
ID_WEIGHT: Final = "id_weight"
"""float scalar in [0, 1], or negative for the weight chosen on validation."""
DIVERSITY: Final = "diversity"
"""float scalar in [0, 1]: how much a result that is unlike those before it counts; 0 for a ranking
by score alone."""
FILTER_SEEN: Final = "filter_seen"
"""bool scalar: whether the items of the history are never recommended."""

ITEM_IDS: Final = "item_ids"
"""string [n, k], best first; "" where fewer than k items could be recommended."""
SCORES: Final = "scores"
"""float [n, k]."""
INTEREST: Final = "interest"
"""int32 [n, k], the interest that found the item; -1 where a popularity list answered."""
VIEW_SCORES: Final = "view_scores"
"""float [n, k, 2], the calibrated scores of the id and the multimodal view."""
BECAUSE: Final = "because"
"""string [n, k, 3], the history items behind each recommendation, strongest first; "" padding.
Also the signature that gives it for items of the caller's choice, `item_ids`, string [n, k]."""
BECAUSE_WEIGHTS: Final = "because_weights"
"""float [n, k, 3], the share of each history item in its recommendation; 0 at padding. A
recommendation's shares over the whole history add up to 1."""
UNKNOWN_ITEMS: Final = "unknown_items"
"""int32 [n], how many ids of the history the model does not know."""
HISTORY_ITEMS: Final = "history_items"
"""string [n, L], the known items of the history that the model looked at; "" padding in front."""
POPULARITY_GAIN: Final = "over_popularity"
"""Suffix of an `evaluate` output: the metric minus that of the popularity baseline."""


def similar_items_name(view: str) -> str:
    """Returns the output of `similar_items` that holds a view's nearest items, string [n, k]."""
    return f"{view}_{ITEM_IDS}"


def similar_scores_name(view: str) -> str:
    """Returns the output that holds their cosine similarities, float [n, k]."""
    return f"{view}_{SCORES}"


def interests_name(view: str) -> str:
    """Returns the output that holds a view's interest vectors, float [n, K, D]."""
    return f"{view}_interests"


def allocation_name(view: str) -> str:
    """Returns the output that holds a view's allocation of `history_items`, float [n, K, L]."""
    return f"{view}_allocation"
