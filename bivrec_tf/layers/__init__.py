"""Keras layers of BiVRec, one public class a file."""

from bivrec_tf.layers.cluster_attention import ClusterAttention
from bivrec_tf.layers.content_projection import ContentProjection
from bivrec_tf.layers.context_block import ContextBlock
from bivrec_tf.layers.dense import Dense
from bivrec_tf.layers.dropout import Dropout
from bivrec_tf.layers.gaussian_attention import GaussianAttention
from bivrec_tf.layers.interest_decomposition import InterestDecomposition
from bivrec_tf.layers.item_embedding import ItemEmbedding
from bivrec_tf.layers.layer_normalization import LayerNormalization
from bivrec_tf.layers.multi_scale_patching import MultiScalePatching

__all__ = [
    "ClusterAttention",
    "ContentProjection",
    "ContextBlock",
    "Dense",
    "Dropout",
    "GaussianAttention",
    "InterestDecomposition",
    "ItemEmbedding",
    "LayerNormalization",
    "MultiScalePatching",
]
