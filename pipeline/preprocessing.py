"""Transform's `preprocessing_fn`: the item vocabulary of the training split, and ids to rows."""

import tensorflow as tf
import tensorflow_transform as tft

from bivrec_tf import features
from bivrec_tf.models.sequential_recommender import USER

VOCABULARY = "items"
"""Name of the vocabulary: items of the training split, most frequent first."""


def preprocessing_fn(inputs: dict[str, tf.SparseTensor]) -> dict[str, tf.Tensor]:
    """Maps item ids to rows of the item order.

    Every training interaction is a target exactly once (see `SequenceBuilder`), so the vocabulary
    counts each of them once. Row 0 is padding: the vocabulary starts at row 1.

    Args:
      inputs: Sequence examples, as `bivrec_tf.features` names them; sparse.

    Returns:
      `user`, int64 `[n, 1]`; `history` and `target`, sparse int64, 0 for unknown items.
    """
    vocabulary = tft.vocabulary(inputs[features.TARGET], vocab_filename=VOCABULARY)

    def rows(name: str) -> tf.SparseTensor:
        ids = tft.apply_vocabulary(
            inputs[name], deferred_vocab_filename_tensor=vocabulary, default_value=-1
        )
        return tf.SparseTensor(ids.indices, ids.values + 1, ids.dense_shape)

    outputs = {name: rows(name) for name in (features.HISTORY, features.TARGET)}
    user = tf.sparse.to_dense(inputs[features.USER_ID], default_value="")
    outputs[USER] = tf.strings.to_hash_bucket_fast(tf.reshape(user, [-1, 1]), 2**62)
    return outputs
