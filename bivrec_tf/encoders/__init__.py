"""Content encoders: from an item's text or image to a vector."""

from bivrec_tf.encoders.base import Encoder, load_encoder

__all__ = ["Encoder", "load_encoder"]
