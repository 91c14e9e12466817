"""How functions of this package become graphs: traced as they are, not translated by AutoGraph.

What depends on a tensor's value is written with TensorFlow's own conditions and loops. AutoGraph
would read, translate and compile the source of every layer all the same, and again for every new
object: a quarter of the time that a process takes until its first step.
"""

import functools

import tensorflow as tf

graph_function = functools.partial(tf.function, autograph=False)
"""`tf.function`, untranslated."""

untranslated = tf.autograph.experimental.do_not_convert
"""For what Keras makes a graph of."""
