"""Turns item rows into item features: one vector for every modality, cached by content."""
