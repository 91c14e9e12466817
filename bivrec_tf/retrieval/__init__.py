"""Exact retrieval over the catalogue."""

from bivrec_tf.retrieval.item_table import ItemTable, TableDtype
from bivrec_tf.retrieval.multi_interest_top_k import MultiInterestTopK, SearchResult

__all__ = ["ItemTable", "MultiInterestTopK", "SearchResult", "TableDtype"]
