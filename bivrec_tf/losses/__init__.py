"""Losses of BiVRec, one public class a file."""

from bivrec_tf.losses.allocation_balance import AllocationBalance
from bivrec_tf.losses.binary_negative import BinaryNegative
from bivrec_tf.losses.catalogue_softmax import CatalogueSoftmax
from bivrec_tf.losses.fused_views_softmax import FusedViewsSoftmax
from bivrec_tf.losses.interest_allocation import InterestAllocation
from bivrec_tf.losses.sampled_softmax import SampledSoftmax
from bivrec_tf.losses.semantic_similarity import SemanticSimilarity

__all__ = [
    "AllocationBalance",
    "BinaryNegative",
    "CatalogueSoftmax",
    "FusedViewsSoftmax",
    "InterestAllocation",
    "SampledSoftmax",
    "SemanticSimilarity",
]
