"""Turns interactions into sequence examples: cleaning, k-core, split, windows."""
