"""The models: BiVRec and the baselines that it is compared with, under one interface."""

from bivrec_tf.models.bivrec import BiVRec
from bivrec_tf.models.comirec_sa import ComiRecSA
from bivrec_tf.models.factory import MODEL_NAMES, create_model, uses_content
from bivrec_tf.models.popularity import Popularity
from bivrec_tf.models.sasrec import SASRec
from bivrec_tf.models.sequential_recommender import SequentialRecommender
from bivrec_tf.models.view_tower import Interests

__all__ = [
    "MODEL_NAMES",
    "BiVRec",
    "ComiRecSA",
    "Interests",
    "Popularity",
    "SASRec",
    "SequentialRecommender",
    "create_model",
    "uses_content",
]
