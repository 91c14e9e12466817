"""Other people's models on our splits."""
