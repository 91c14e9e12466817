"""Exact retrieval over the catalogue."""

from bivrec_tf.retrieval.item_table import ItemTable
from bivrec_tf.retrieval.multi_interest_top_k import MultiInterestTopK
from bivrec_tf.retrieval.search_result import SearchResult

__all__ = ["ItemTable", "MultiInterestTopK", "SearchResult"]
