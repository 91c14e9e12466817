"""The losses of the recommendation tasks: of every view, and of both views' scores together."""

from collections.abc import Mapping

import numpy as np
import tensorflow as tf

from bivrec_tf.config import LossConfig
from bivrec_tf.losses import (
    BinaryNegative,
    CatalogueSoftmax,
    FusedViewsSoftmax,
    SampledSoftmax,
)
from bivrec_tf.losses.chunks import side_by_side
from bivrec_tf.precision import product_dtype

FUSION = "fusion"
"""The name of the task of two views' scores together."""


class TaskLoss:
    """The loss of targets for the interests before them, as `loss.softmax` and `readout` say.

    Args:
      config: Which softmax, and its parts.
      readout: How the scores of several interests become one; see `ModelConfig`.
      counts: int `[V]`, training interactions of every item.

    Reference: `docs/model.md`, sections 3 and 4.
    """

    def __init__(self, config: LossConfig, readout: str, counts: np.ndarray) -> None:
        self._softmax = config.softmax
        self._readout = readout
        probabilities = counts.astype(np.float32)
        self._target_probabilities = probabilities / max(probabilities.sum(), 1.0)
        dtype = product_dtype(config.softmax_dtype)
        self._full_softmax = CatalogueSoftmax(
            "logsumexp" if readout == "logsumexp" else "max", config.softmax_chunk_rows, dtype
        )
        # Where products are in bfloat16, they are no longer what takes the time.
        fuses = readout == "logsumexp" and config.softmax == "full" and dtype == "float32"
        self._fused_softmax = FusedViewsSoftmax(config.softmax_chunk_rows) if fuses else None
        self._binary_negative = BinaryNegative()
        self._sampled_softmax = SampledSoftmax(config.sampled_negatives)

    def of_views(
        self,
        tasks: Mapping[str, tuple[tf.Tensor, tf.Tensor]],
        targets: tf.Tensor,
        weights: Mapping[str, float],
    ) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
        """Returns the weighted sum of several tasks' losses, and each loss by name.

        The losses by name are to look at; gradients are of the sum.

        Args:
          tasks: Queries and items of every view, as for a call.
          targets: int `[n]`, indices into the items.
          weights: Of every view, by its name, and of `FUSION`, the task of the mean of two views'
            scores, where it is wanted.
        """
        queries, items = zip(*tasks.values(), strict=True)
        if weights.get(FUSION) and self._fused_softmax is not None:
            names = (*tasks, FUSION)
            total, found = self._fused_softmax(
                queries, items, targets, [weights[name] for name in names]
            )
            return total, dict(zip(names, tf.unstack(found), strict=True))
        losses = {view: self(*task, targets) for view, task in tasks.items()}
        if weights.get(FUSION):
            losses[FUSION] = self(*side_by_side(queries, items), targets)
        return tf.add_n([weights[name] * loss for name, loss in losses.items()]), losses

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
