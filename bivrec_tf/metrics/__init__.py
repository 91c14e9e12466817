"""Full-ranking metrics, one public class a file."""

from bivrec_tf.metrics.catalogue_coverage import CatalogueCoverage
from bivrec_tf.metrics.hit_rate import HitRate
from bivrec_tf.metrics.ndcg import NDCG
from bivrec_tf.metrics.ranking_metric import RankingMetric
from bivrec_tf.metrics.recall import Recall
from bivrec_tf.metrics.reciprocal_rank import ReciprocalRank

__all__ = ["NDCG", "CatalogueCoverage", "HitRate", "RankingMetric", "Recall", "ReciprocalRank"]
