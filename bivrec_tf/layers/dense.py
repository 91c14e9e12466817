"""A dense layer whose matrix product may be in another type than what goes in and comes out."""

import tensorflow as tf
import tf_keras


class Dense(tf_keras.layers.Dense):
    """Keras' dense layer; under the policy `BFloat16Products` the product is in bfloat16.

    Then forward and backward products take bfloat16 and give bfloat16, and the bias, the activation
    and every other layer see float32. Under any other policy this is Keras' layer, to rounding.

    Input shape: float `[..., in]`.
    Output shape: float `[..., units]`, of the input's type under `BFloat16Products`.

    Example:
      >>> Dense(3)(tf.ones([2, 4])).shape
      TensorShape([2, 3])
    """

    def call(self, inputs):
        product_dtype = getattr(self.dtype_policy, "product_dtype", self.compute_dtype)
        # Flat: the gradient of a product with a batch in front would sum over the batch afterwards,
        # and a bias and an activation behind a reshape are no part of the product.
        outputs = tf.reshape(tf.cast(inputs, product_dtype), [-1, inputs.shape[-1]])
        outputs = tf.matmul(outputs, tf.cast(self.kernel, product_dtype))
        outputs = tf.cast(outputs, inputs.dtype)
        if self.use_bias:
            outputs = tf.nn.bias_add(outputs, self.bias)
        shape = tf.concat([tf.shape(inputs)[:-1], [self.units]], axis=0)
        outputs = tf.reshape(self.activation(outputs), shape)
        return tf.ensure_shape(outputs, [*inputs.shape[:-1], self.units])
