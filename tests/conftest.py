"""Settings that every test shares."""

import os

# Before TensorFlow is imported by anything.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import bivrec_tf  # noqa: E402, F401  (selects Keras 2 for the whole process)
