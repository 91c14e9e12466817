"""BERT as a sentence encoder: transformer, mean pooling, L2 normalisation."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras

PAD_ID = 0


class BertBlock(tf_keras.layers.Layer):
    """One transformer layer, normalised after each residual sum, as in the original BERT.

    Args:
        num_heads: attention heads; divides `dimension`.
        dimension: width of the hidden states.
        intermediate_dimension: width of the feed-forward layer.
        epsilon: of both layer normalisations.
        **kwargs: for the base class.

    Call arguments:
        inputs: float [batch, length, dimension].
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
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.num_heads = num_heads
        self.dimension = dimension
        self.intermediate_dimension = intermediate_dimension
        self.epsilon = epsilon
        dense = tf_keras.layers.Dense
        self.query = dense(dimension, name="query")
        self.key = dense(dimension, name="key")
        self.value = dense(dimension, name="value")
        self.attention_output = dense(dimension, name="attention_output")
        self.attention_norm = tf_keras.layers.LayerNormalization(epsilon=epsilon)
        self.intermediate = dense(intermediate_dimension, name="intermediate")
        self.output_dense = dense(dimension, name="output_dense")
        self.output_norm = tf_keras.layers.LayerNormalization(epsilon=epsilon)

    def call(self, inputs: tf.Tensor, attention_bias: tf.Tensor) -> tf.Tensor:
        query, key, value = (
            self._split_heads(projection(inputs))
            for projection in (self.query, self.key, self.value)
        )
        head_dimension = self.dimension // self.num_heads
        scores = tf.matmul(query, key, transpose_b=True) * head_dimension**-0.5
        context = tf.matmul(tf.nn.softmax(scores + attention_bias), value)
        context = tf.reshape(tf.transpose(context, [0, 2, 1, 3]), tf.shape(inputs))
        attended = self.attention_norm(inputs + self.attention_output(context))
        # BERT was trained with the exact gelu, not with the approximation by tanh.
        hidden = tf.nn.gelu(self.intermediate(attended), approximate=False)
        return self.output_norm(attended + self.output_dense(hidden))

    def _split_heads(self, states: tf.Tensor) -> tf.Tensor:
        """[batch, length, dimension] -> [batch, num_heads, length, dimension / num_heads]."""
        shape = tf.shape(states)
        heads = tf.reshape(
            states, [shape[0], shape[1], self.num_heads, self.dimension // self.num_heads]
        )
        return tf.transpose(heads, [0, 2, 1, 3])

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {
            "num_heads": self.num_heads,
            "dimension": self.dimension,
            "intermediate_dimension": self.intermediate_dimension,
            "epsilon": self.epsilon,
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
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
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
        self.embedding_norm = tf_keras.layers.LayerNormalization(epsilon=epsilon)
        self.blocks = [
            BertBlock(num_heads, dimension, intermediate_dimension, epsilon, name=f"block_{n}")
            for n in range(num_layers)
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
            prefix = f"encoder.layer.{number}"
            _assign_dense(block.query, weights, f"{prefix}.attention.self.query")
            _assign_dense(block.key, weights, f"{prefix}.attention.self.key")
            _assign_dense(block.value, weights, f"{prefix}.attention.self.value")
            _assign_dense(block.attention_output, weights, f"{prefix}.attention.output.dense")
            _assign_norm(block.attention_norm, weights, f"{prefix}.attention.output.LayerNorm")
            _assign_dense(block.intermediate, weights, f"{prefix}.intermediate.dense")
            _assign_dense(block.output_dense, weights, f"{prefix}.output.dense")
            _assign_norm(block.output_norm, weights, f"{prefix}.output.LayerNorm")

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {
            "vocabulary_size": self.vocabulary_size,
            "num_layers": self.num_layers,
            "num_heads": self.num_heads,
            "dimension": self.dimension,
            "intermediate_dimension": self.intermediate_dimension,
            "max_length": self.max_length,
            "epsilon": self.epsilon,
        }


def _assign_dense(
    layer: tf_keras.layers.Dense, weights: Mapping[str, np.ndarray], prefix: str
) -> None:
    # Checkpoints store [out, in], Keras [in, out].
    layer.set_weights([weights[f"{prefix}.weight"].T, weights[f"{prefix}.bias"]])


def _assign_norm(
    layer: tf_keras.layers.LayerNormalization, weights: Mapping[str, np.ndarray], prefix: str
) -> None:
    layer.set_weights([weights[f"{prefix}.weight"], weights[f"{prefix}.bias"]])
