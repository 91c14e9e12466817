"""An encoder that costs next to nothing, so that a benchmark sees what is around it."""

import zlib
from collections.abc import Sequence

import numpy as np

from bivrec_tf.encoders import Encoder


class WordHashEncoder(Encoder):
    """Counts words by their hash, in as many numbers as all-MiniLM-L6-v2 gives."""

    name = "word-hash"
    dimension = 384
    fingerprint = "word-hash-1"

    def encode(self, batch: Sequence[str]) -> np.ndarray:
        """Returns float32 [len(batch), 384]."""
        vectors = np.zeros([len(batch), self.dimension], np.float32)
        for row, text in enumerate(batch):
            for word in text.split():
                vectors[row, zlib.crc32(word.encode()) % self.dimension] += 1
        return vectors
