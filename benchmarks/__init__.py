"""What the project measures of itself; every module says how to run it."""

# First of all: TensorFlow must find Keras 2 chosen when it is imported.
import bivrec_tf as _bivrec_tf  # noqa: F401
