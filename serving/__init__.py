"""Client and development server for the exported model, and its deployment."""

# Chooses Keras 2 for the process. It stands here, and not in the modules, because it must come
# before the first import of TensorFlow, whichever module of this package is imported first.
import bivrec_tf as _bivrec_tf  # noqa: F401
