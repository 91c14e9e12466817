"""BiVRec-TF: bidirectional view-based multimodal sequential recommendation in TensorFlow.

Importing the package selects Keras 2 (`tf_keras`), which TensorFlow Recommenders needs, for the
whole process. It must therefore come before the first import of TensorFlow, or find
`TF_USE_LEGACY_KERAS=1` already set.
"""

import os as _os
import sys as _sys

from bivrec_tf.version import __version__

if _os.environ.get("TF_USE_LEGACY_KERAS") != "1":
    if "tensorflow" in _sys.modules:
        raise ImportError(
            "TensorFlow was imported before bivrec_tf and without TF_USE_LEGACY_KERAS=1, so it "
            "uses Keras 3, which TensorFlow Recommenders cannot work with. Import bivrec_tf "
            "first, or set TF_USE_LEGACY_KERAS=1 in the environment."
        )
    _os.environ["TF_USE_LEGACY_KERAS"] = "1"

__all__ = ["__version__"]
