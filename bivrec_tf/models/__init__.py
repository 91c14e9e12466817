"""Models."""

from bivrec_tf.models.bivrec import BiVRec
from bivrec_tf.models.view_tower import Interests

__all__ = ["BiVRec", "Interests"]
