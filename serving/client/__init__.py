"""Clients for the exported model. They need grpcio and protobuf, and nothing of TensorFlow."""

from serving.answers import (
    Explanation,
    Interests,
    Recommendation,
    Recommendations,
    Signature,
    SimilarItem,
    SimilarItems,
    TensorDescription,
    VersionStatus,
)
from serving.client.async_recommender_client import AsyncRecommenderClient
from serving.client.connection import RetryPolicy, TlsOptions
from serving.client.recommender_client import RecommenderClient
from serving.errors import (
    DeadlineExceeded,
    InvalidRequest,
    ModelNotFound,
    ServerUnavailable,
    ServingError,
    UnexpectedAnswer,
)

__all__ = [
    "AsyncRecommenderClient",
    "DeadlineExceeded",
    "Explanation",
    "Interests",
    "InvalidRequest",
    "ModelNotFound",
    "Recommendation",
    "Recommendations",
    "RecommenderClient",
    "RetryPolicy",
    "ServerUnavailable",
    "ServingError",
    "Signature",
    "SimilarItem",
    "SimilarItems",
    "TensorDescription",
    "TlsOptions",
    "UnexpectedAnswer",
    "VersionStatus",
]
