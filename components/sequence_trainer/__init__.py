"""The standard Trainer with two more inputs: item features and held-out sequences."""
