"""Gives a served model an updated item table, without training."""
