"""Serves the exported model for real and compares its answers with the offline ones."""
