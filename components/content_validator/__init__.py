"""Tells when items' content is no longer what the last model was trained with."""
