"""Gives a served model an updated item table, without training."""

MAX_RETIRED = 0.2
"""Share of the listed items that a refresh retires without being told that it may."""
