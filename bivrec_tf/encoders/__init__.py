"""Content encoders: from an item's text (or another modality) to a vector."""

from bivrec_tf.encoders.base import Encoder, load_encoder

__all__ = ["Encoder", "load_encoder"]
