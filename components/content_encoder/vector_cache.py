"""Vectors on disk, by the hash of what they were made from: nothing is encoded twice."""

import hashlib
import io
import logging
import uuid
import zipfile
from collections.abc import Mapping

import numpy as np
from apache_beam.io.filesystems import FileSystems

# An item's bucket is the head of its key: a worker reads and writes one bucket at a time.
BUCKETS = 64
_KEY_BYTES = 32


def content_key(fingerprint: str, content: str) -> bytes:
    """Returns the key of a content under an encoder: SHA-256 of both, 32 bytes."""
    digest = hashlib.sha256(fingerprint.encode())
    digest.update(b"\0")
    digest.update(content.encode())
    return digest.digest()


def bucket_of(key: bytes) -> int:
    """Returns the bucket of a key, 0 <= bucket < `BUCKETS`."""
    return key[0] % BUCKETS


class VectorCache:
    """Immutable shards `<directory>/<encoder>-<fingerprint>/<bucket>-<hash>.npz`.

    A shard holds `keys`, uint8 [n, 32], and `vectors`, float32 [n, dimension]. It is written under
    another name and renamed, so that no reader ever sees half of it, and never changed after;
    runs at the same time cannot disturb each other. Nothing in it is pickled.

    Args:
        directory: the cache of all encoders, on any file system that Beam knows.
        encoder_name: the encoder's `name`.
        fingerprint: the encoder's `fingerprint`.
        dimension: length of the vectors.
    """

    def __init__(self, directory: str, encoder_name: str, fingerprint: str, dimension: int):
        self._directory = FileSystems.join(directory, f"{encoder_name}-{fingerprint[:16]}")
        self._dimension = dimension

    def read(self, bucket: int) -> dict[bytes, np.ndarray]:
        """Returns key -> float32 [dimension] for all that is cached in a bucket.

        A shard that cannot be read is skipped with a warning: its contents are encoded again.
        """
        vectors: dict[bytes, np.ndarray] = {}
        pattern = FileSystems.join(self._directory, f"{bucket:02d}-*.npz")
        for match in FileSystems.match([pattern])[0].metadata_list:
            try:
                with FileSystems.open(match.path) as file:
                    shard = np.load(io.BytesIO(file.read()), allow_pickle=False)
                    keys, values = shard["keys"], shard["vectors"]
            except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
                logging.getLogger(__name__).warning("Skipped %s: %s", match.path, error)
                continue
            if values.shape != (len(keys), self._dimension):
                logging.getLogger(__name__).warning("Skipped %s: wrong shape", match.path)
                continue
            for key, value in zip(keys, values, strict=True):
                vectors[key.tobytes()] = value
        return vectors

    def write(self, bucket: int, vectors: Mapping[bytes, np.ndarray]) -> None:
        """Adds a shard with new vectors; the same content always gets the same name."""
        keys = sorted(vectors)
        buffer = io.BytesIO()
        np.savez(
            buffer,
            keys=np.frombuffer(b"".join(keys), np.uint8).reshape(len(keys), _KEY_BYTES),
            vectors=np.stack([vectors[key] for key in keys]).astype(np.float32),
        )
        name = hashlib.sha256(b"".join(keys)).hexdigest()[:24]
        path = FileSystems.join(self._directory, f"{bucket:02d}-{name}.npz")
        if not FileSystems.exists(self._directory):
            _make_directory(self._directory)
        # The unfinished name ends otherwise, and differs between processes.
        unfinished = f"{path}.{uuid.uuid4().hex}.part"
        with FileSystems.create(unfinished) as file:
            file.write(buffer.getvalue())
        FileSystems.rename([unfinished], [path])


def _make_directory(directory: str) -> None:
    try:
        FileSystems.mkdirs(directory)
    except OSError:
        # Another worker made it in between.
        if not FileSystems.exists(directory):
            raise
