"""BERT as a sentence encoder: transformer, mean pooling, L2 normalisation."""

import functools
from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras

PAD_ID = 0


class LayerNormalization(tf_keras.layers.LayerNormalization):
    """Keras's layer normalisation over the last axis, in a form that survives freezing.

    Call arguments:
        inputs: float32 [..., dimension].

    Returns:
        float32 [..., dimension].
    """

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        # TensorFlow 2.21 fuses the usual form in a frozen graph, and the fused kernel then computes
        # with an epsilon of 0.001, whatever was asked for. This form it does not recognise.
        centred = inputs - tf.reduce_mean(inputs, axis=-1, keepdims=True)
        variance = tf.reduce_mean(centred * centred, axis=-1, keepdims=True)
        return centred * tf.math.rsqrt(variance + self.epsilon) * self.gamma + self.beta


class BertBlock(tf_keras.layers.Layer):
    """One transformer layer, normalised after each residual sum, as in the original BERT.

    Args:
        num_heads: attention heads; divides `dimension`.
        dimension: width of the hidden states.
        intermediate_dimension: width of the feed-forward layer.
        epsilon: of both layer normalisations.
        product_type: `float32`, or `bfloat16` for matrix products in half the bits; sums over
            layers and normalisations stay in float32.
        **kwargs: for the base class.

    Call arguments:
        inputs: float32 [batch, length, dimension].
        attention_bias: float [batch, 1, 1, length], 0 where to look, very negative where not.

    Returns:
        float [batch, length, dimension].

    Reference: Devlin et al., BERT: Pre-training of Deep Bidirectional Transformers for Language
    Understanding, 2019.
    """

    def __init__(
        self,
        num_heads: int,
        dimension: int,
        intermediate_dimension: int,
        epsilon: float,
        product_type: str = "float32",
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.num_heads = num_heads
        self.dimension = dimension
        self.intermediate_dimension = intermediate_dimension
        self.epsilon = epsilon
        self.product_type = product_type
        dense = functools.partial(tf_keras.layers.Dense, dtype=_policy(product_type))
        # Query, key and value side by side: one wide product is faster than three.
        self.projection = dense(3 * dimension, name="projection")
        self.attention_output = dense(dimension, name="attention_output")
        self.attention_norm = LayerNormalization(epsilon=epsilon)
        self.intermediate = dense(intermediate_dimension, name="intermediate")
        self.output_dense = dense(dimension, name="output_dense")
        self.output_norm = LayerNormalization(epsilon=epsilon)

    def call(self, inputs: tf.Tensor, attention_bias: tf.Tensor) -> tf.Tensor:
        shape = tf.shape(inputs)
        # All words of all sentences below each other: products of two matrices are fused with what
        # follows them, products of higher rank are not.
        states = tf.reshape(inputs, [-1, self.dimension])
        attended = states + _float32(
            self.attention_output(self._attend(states, attention_bias, shape[0], shape[1]))
        )
        attended = self.attention_norm(attended)
        # BERT was trained with the exact gelu, not with the approximation by tanh.
        hidden = tf.nn.gelu(self.intermediate(attended), approximate=False)
        outputs = self.output_norm(attended + _float32(self.output_dense(hidden)))
        return tf.reshape(outputs, shape)

    def _attend(
        self, states: tf.Tensor, attention_bias: tf.Tensor, batch: tf.Tensor, length: tf.Tensor
    ) -> tf.Tensor:
        """[batch * length, dimension] -> the same, each word a mean over its sentence."""
        head_dimension = self.dimension // self.num_heads
        heads = tf.reshape(
            self.projection(states), [batch, length, 3, self.num_heads, head_dimension]
        )
        query, key, value = tf.unstack(tf.transpose(heads, [2, 0, 3, 1, 4]))
        # The query comes scaled, see `assign_weights`.
        scores = tf.matmul(query, key, transpose_b=True)
        weights = tf.nn.softmax(scores + tf.cast(attention_bias, scores.dtype))
        context = tf.transpose(tf.matmul(weights, value), [0, 2, 1, 3])
        return tf.reshape(context, [-1, self.dimension])

    def assign_weights(self, weights: Mapping[str, np.ndarray], prefix: str) -> None:
        """Assigns weights under the names that BERT checkpoints carry after a prefix."""
        kernels, biases = zip(
            *(
                (
                    weights[f"{prefix}.attention.self.{part}.weight"].T,
                    weights[f"{prefix}.attention.self.{part}.bias"],
                )
                for part in ("query", "key", "value")
            ),
            strict=True,
        )
        # Scaling scores by 1 / sqrt(head dimension) is scaling the query, once and for all.
        scale = (self.dimension // self.num_heads) ** -0.5
        self.projection.set_weights(
            [
                np.concatenate([kernels[0] * scale, *kernels[1:]], axis=1),
                np.concatenate([biases[0] * scale, *biases[1:]]),
            ]
        )
        _assign_dense(self.attention_output, weights, f"{prefix}.attention.output.dense")
        _assign_norm(self.attention_norm, weights, f"{prefix}.attention.output.LayerNorm")
        _assign_dense(self.intermediate, weights, f"{prefix}.intermediate.dense")
        _assign_dense(self.output_dense, weights, f"{prefix}.output.dense")
        _assign_norm(self.output_norm, weights, f"{prefix}.output.LayerNorm")

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {
            "num_heads": self.num_heads,
            "dimension": self.dimension,
            "intermediate_dimension": self.intermediate_dimension,
            "epsilon": self.epsilon,
            "product_type": self.product_type,
        }


class BertSentenceEncoder(tf_keras.Model):
    """Word piece ids -> unit vectors: BERT, the mean over the pieces, L2 normalisation.

    Args:
        vocabulary_size: number of word pieces; id 0 is padding.
        num_layers: transformer layers.
        num_heads: attention heads of each.
        dimension: width of the hidden states and of the result.
        intermediate_dimension: width of the feed-forward layers.
        max_length: number of positions there are embeddings for.
        epsilon: of the layer normalisations.
        product_type: `float32`, or `bfloat16` for the matrix products of the blocks.
        **kwargs: for the base class.

    Call arguments:
        inputs: int [batch, length], length <= `max_length`, padded with 0.

    Returns:
        float32 [batch, dimension], of norm 1.

    Reference: Reimers and Gurevych, Sentence-BERT, 2019.
    """

    def __init__(
        self,
        vocabulary_size: int,
        num_layers: int,
        num_heads: int,
        dimension: int,
        intermediate_dimension: int,
        max_length: int,
        epsilon: float = 1e-12,
        product_type: str = "float32",
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.product_type = product_type
        self.vocabulary_size = vocabulary_size
        self.num_layers = num_layers
        self.num_heads = num_heads
        self.dimension = dimension
        self.intermediate_dimension = intermediate_dimension
        self.max_length = max_length
        self.epsilon = epsilon
        self.word_embedding = tf_keras.layers.Embedding(vocabulary_size, dimension)
        self.position_embedding = tf_keras.layers.Embedding(max_length, dimension)
        self.segment_embedding = tf_keras.layers.Embedding(2, dimension)
        self.embedding_norm = LayerNormalization(epsilon=epsilon)
        self.blocks = [
            BertBlock(
                num_heads,
                dimension,
                intermediate_dimension,
                epsilon,
                product_type,
                name=f"block_{number}",
            )
            for number in range(num_layers)
        ]

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        mask = tf.cast(inputs != PAD_ID, tf.float32)
        states = self.word_embedding(inputs)
        states += self.position_embedding(tf.range(tf.shape(inputs)[1]))
        # A sentence alone is all segment 0.
        states += self.segment_embedding(tf.constant(0))
        states = self.embedding_norm(states)
        attention_bias = (1.0 - mask[:, tf.newaxis, tf.newaxis, :]) * states.dtype.min
        for block in self.blocks:
            states = block(states, attention_bias=attention_bias)
        mean = tf.reduce_sum(states * mask[:, :, tf.newaxis], axis=1)
        mean /= tf.reduce_sum(mask, axis=1, keepdims=True)
        return tf.math.l2_normalize(mean, axis=-1)

    def assign_weights(self, weights: Mapping[str, np.ndarray]) -> None:
        """Assigns weights under the names that BERT checkpoints carry.

        Args:
            weights: name (`encoder.layer.0.attention.self.query.weight`) -> values.

        Raises:
            KeyError: a weight is missing.
            ValueError: a weight has another shape.
        """
        self(tf.ones([1, 1], tf.int32))  # Builds the variables.
        for layer, name in (
            (self.word_embedding, "word_embeddings"),
            (self.position_embedding, "position_embeddings"),
            (self.segment_embedding, "token_type_embeddings"),
        ):
            layer.set_weights([weights[f"embeddings.{name}.weight"]])
        _assign_norm(self.embedding_norm, weights, "embeddings.LayerNorm")
        for number, block in enumerate(self.blocks):
            block.assign_weights(weights, f"encoder.layer.{number}")

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {
            "vocabulary_size": self.vocabulary_size,
            "num_layers": self.num_layers,
            "num_heads": self.num_heads,
            "dimension": self.dimension,
            "intermediate_dimension": self.intermediate_dimension,
            "max_length": self.max_length,
            "epsilon": self.epsilon,
            "product_type": self.product_type,
        }


def _float32(states: tf.Tensor) -> tf.Tensor:
    return tf.cast(states, tf.float32)


def _policy(product_type: str) -> str:
    """Weights stay in float32: they are rounded once, when the graph is frozen."""
    return product_type if product_type == "float32" else f"mixed_{product_type}"


def _assign_dense(
    layer: tf_keras.layers.Dense, weights: Mapping[str, np.ndarray], prefix: str
) -> None:
    # Checkpoints store [out, in], Keras [in, out].
    layer.set_weights([weights[f"{prefix}.weight"].T, weights[f"{prefix}.bias"]])


def _assign_norm(layer: LayerNormalization, weights: Mapping[str, np.ndarray], prefix: str) -> None:
    layer.set_weights([weights[f"{prefix}.weight"], weights[f"{prefix}.bias"]])
