"""Exact retrieval over the catalogue."""

from bivrec_tf.retrieval.multi_interest_top_k import MultiInterestTopK, SearchResult

__all__ = ["MultiInterestTopK", "SearchResult"]
