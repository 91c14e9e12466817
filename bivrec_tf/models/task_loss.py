"""The loss of a view's own recommendation task."""

import numpy as np
import tensorflow as tf

from bivrec_tf.config import LossConfig
from bivrec_tf.losses import BinaryNegative, CatalogueSoftmax, SampledSoftmax
from bivrec_tf.precision import product_dtype


class TaskLoss:
    """The loss of targets for the interests before them, as `loss.softmax` and `readout` say.

    Args:
      config: Which softmax, and its parts.
      readout: How the scores of several interests become one; see `ModelConfig`.
      counts: int `[V]`, training interactions of every item.

    Reference: `docs/model.md`, section 3.
    """

    def __init__(self, config: LossConfig, readout: str, counts: np.ndarray) -> None:
        self._softmax = config.softmax
        self._readout = readout
        probabilities = counts.astype(np.float32)
        self._target_probabilities = probabilities / max(probabilities.sum(), 1.0)
        self._full_softmax = CatalogueSoftmax(
            "logsumexp" if readout == "logsumexp" else "max",
            config.softmax_chunk_rows,
            product_dtype(config.softmax_dtype),
        )
        self._binary_negative = BinaryNegative()
        self._sampled_softmax = SampledSoftmax(config.sampled_negatives)

    def __call__(self, queries: tf.Tensor, items: tf.Tensor, targets: tf.Tensor) -> tf.Tensor:
        """Returns the mean loss, a float32 scalar.

        Args:
          queries: float `[n, K, D]`, already divided by the temperature.
          items: float `[V, D]`, without padding.
          targets: int `[n]`, indices into `items`.
        """
        if self._readout == "target":
            # Gathered and not multiplied: [n, K, D] times the n targets is all that it costs.
            of_target = tf.einsum("nkd,nd->nk", queries, tf.gather(items, targets))
            best = tf.argmax(of_target, axis=1, output_type=tf.int32)
            queries = tf.gather(queries, best, batch_dims=1)[:, tf.newaxis]
        if self._softmax == "binary":
            return self._binary_negative(queries, items, targets)
        if self._softmax == "full":
            return self._full_softmax(queries, items, targets)
        return self._sampled_softmax(queries, items, targets, self._target_probabilities)
