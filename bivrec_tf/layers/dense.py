"""A dense layer whose matrix product may be in another type than what goes in and comes out."""

import tensorflow as tf
import tf_keras


class Dense(tf_keras.layers.Dense):
    """Keras' dense layer; under the policy `BFloat16Products` the product is in bfloat16.

    Then forward and backward products take bfloat16 and give bfloat16, and the bias, the activation
    and every other layer see float32; but for inference, where an activation is of bfloat16 too: it
    is then a part of the product (oneDNN), and costs no pass over what comes out. Under any other
    policy this is Keras' layer.

    Input shape: float `[..., in]`.
    Output shape: float `[..., units]`, of the input's type under `BFloat16Products`.

    Example:
      >>> Dense(3)(tf.ones([2, 4])).shape
      TensorShape([2, 3])
    """

    def call(self, inputs, training=None):
        product_dtype = getattr(self.dtype_policy, "product_dtype", self.compute_dtype)
        # Flat: the gradient of a product with a batch in front would sum over the batch afterwards,
        # and a bias and an activation behind a reshape are no part of the product.
        outputs = tf.reshape(tf.cast(inputs, product_dtype), [-1, inputs.shape[-1]])
        outputs = tf.matmul(outputs, tf.cast(self.kernel, product_dtype))
        if training or self.activation is tf_keras.activations.linear:
            outputs = tf.cast(outputs, inputs.dtype)
        if self.use_bias:
            outputs = tf.nn.bias_add(outputs, tf.cast(self.bias, outputs.dtype))
        outputs = tf.cast(self.activation(outputs), inputs.dtype)
        shape = tf.concat([tf.shape(inputs)[:-1], [self.units]], axis=0)
        outputs = tf.reshape(outputs, shape)
        return tf.ensure_shape(outputs, [*inputs.shape[:-1], self.units])
