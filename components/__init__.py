"""Custom TFX components: spec, executor, and a core without TFX that is tested alone."""

# Selects Keras 2 for the process; must come before any module here imports TensorFlow.
import bivrec_tf as _bivrec_tf  # noqa: F401
