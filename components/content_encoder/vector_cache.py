"""Vectors on disk, by the hash of what they were made from: nothing is encoded twice."""

import contextlib
import hashlib
import io
import logging
import os
import uuid
import zipfile
import zlib
from collections.abc import Collection, Iterable, Mapping

import numpy as np
from apache_beam.io.filesystems import FileSystems

# An item's bucket is the head of its key: a worker reads and writes one bucket at a time.
BUCKETS = 64
# A bucket that has more shards than this when it is finished is merged into one.
MAX_SHARDS = 8
_KEY_BYTES = 32


def content_key(fingerprint: str, content: str | bytes) -> bytes:
    """Returns the key of a content under an encoder: SHA-256 of both, 32 bytes."""
    digest = hashlib.sha256(fingerprint.encode())
    digest.update(b"\0")
    digest.update(content.encode() if isinstance(content, str) else content)
    return digest.digest()


def bucket_of(key: bytes) -> int:
    """Returns the bucket of a key, 0 <= bucket < `BUCKETS`."""
    return key[0] % BUCKETS


class VectorCache:
    """Immutable shards `<directory>/<encoder>-<fingerprint>/<bucket>-<hash>-<vectors>.npz`.

    A shard holds `keys`, uint8 [n, 32], and `vectors`, float32 [n, dimension]. It is written under
    another name and renamed, so that no reader ever sees half of it, and never changed after.
    Shards may be removed once another one holds their vectors, or when the cache is full: a
    reader that misses a vector lists again. So runs at the same time cannot disturb each
    other. A shard's time of modification tells when it was last used. Nothing in it is pickled.

    Args:
        directory: the cache of all encoders, on any file system that Beam knows.
        encoder_name: the encoder's `name`.
        fingerprint: the encoder's `fingerprint`.
        dimension: length of the vectors.
    """

    def __init__(self, directory: str, encoder_name: str, fingerprint: str, dimension: int):
        self._directory = FileSystems.join(directory, f"{encoder_name}-{fingerprint[:16]}")
        self._dimension = dimension

    def read(self, bucket: int, wanted: Collection[bytes]) -> dict[bytes, np.ndarray]:
        """Returns key -> float32 [dimension] for those of the wanted keys that are cached.

        A shard that cannot be read is skipped with a warning: its contents are encoded again.

        Args:
            bucket: where to look.
            wanted: keys of that bucket; a set, if there are many.
        """
        found: dict[bytes, np.ndarray] = {}
        seen: set[str] = set()
        before: list[str] | None = None
        listed = self._shards(bucket)
        # A directory is not listed in one instant: a merge that ends meanwhile can hide both the
        # old shards and the new one. So what is missing is only believed of two equal lists.
        while len(found) < len(wanted) and listed != before:
            for path in listed:
                if path in seen:
                    continue
                seen.add(path)
                try:
                    vectors = self._read_shard(path, wanted)
                except FileNotFoundError:
                    # Merged by another run: what it held is in a shard that is not listed yet.
                    continue
                except _TornShardError as error:
                    logging.getLogger(__name__).warning("Skipped %s: %s", path, error)
                    continue
                if vectors:
                    _touch(path)
                found.update(vectors)
            before, listed = listed, self._shards(bucket)
        return found

    def write(self, bucket: int, vectors: Mapping[bytes, np.ndarray]) -> str:
        """Adds a shard with new vectors, and returns its path.

        The same keys always get the same name.
        """
        keys = sorted(vectors)
        buffer = io.BytesIO()
        np.savez(
            buffer,
            keys=np.frombuffer(b"".join(keys), np.uint8).reshape(len(keys), _KEY_BYTES),
            vectors=np.stack([vectors[key] for key in keys]).astype(np.float32),
        )
        name = hashlib.sha256(b"".join(keys)).hexdigest()[:24]
        path = FileSystems.join(self._directory, f"{bucket:02d}-{name}-{len(keys)}.npz")
        if not FileSystems.exists(self._directory):
            _make_directory(self._directory)
        # The unfinished name ends otherwise, and differs between processes.
        unfinished = f"{path}.{uuid.uuid4().hex}.part"
        with FileSystems.create(unfinished) as file:
            file.write(buffer.getbuffer())
        FileSystems.rename([unfinished], [path])
        return path

    def merge(self, bucket: int, written: Iterable[str]) -> None:
        """Makes one shard of those that a run wrote, or of all when there are too many.

        Only those: shards of earlier runs keep their age, so that what is no longer used can go.

        Args:
            bucket: a bucket that is finished.
            written: the paths that `write` returned for it.
        """
        listed = self._shards(bucket)
        paths = listed if len(listed) > MAX_SHARDS else sorted(set(written) & set(listed))
        if len(paths) < 2:
            return
        vectors: dict[bytes, np.ndarray] = {}
        merged = []
        for path in paths:
            try:
                vectors.update(self._read_shard(path))
            except FileNotFoundError:
                continue
            except _TornShardError as error:
                logging.getLogger(__name__).warning("Removed %s: %s", path, error)
            merged.append(path)
        kept = self.write(bucket, vectors) if vectors else None
        for path in merged:
            if path != kept:
                remove_file(path)

    def _shards(self, bucket: int) -> list[str]:
        pattern = FileSystems.join(self._directory, f"{bucket:02d}-*.npz")
        return sorted(match.path for match in FileSystems.match([pattern])[0].metadata_list)

    def _read_shard(
        self, path: str, wanted: Collection[bytes] | None = None
    ) -> dict[bytes, np.ndarray]:
        """Returns the wanted vectors of a shard, or all.

        Raises:
            FileNotFoundError: the shard is gone.
            _TornShardError: it cannot be read.
        """
        try:
            with FileSystems.open(path) as file:
                shard = np.load(io.BytesIO(file.read()), allow_pickle=False)
                keys, values = shard["keys"], shard["vectors"]
        # A zip file's damaged header can ask for a version or a compression that nobody knows.
        except (
            OSError,
            ValueError,
            KeyError,
            EOFError,
            RuntimeError,
            zipfile.BadZipFile,
            zlib.error,
        ) as error:
            if not FileSystems.exists(path):
                raise FileNotFoundError(path) from error
            raise _TornShardError(str(error)) from error
        if values.shape != (len(keys), self._dimension):
            raise _TornShardError(f"its vectors have shape {values.shape}")
        rows = ((key.tobytes(), value) for key, value in zip(keys, values, strict=True))
        # Copied: a view would keep the whole shard in memory for one vector.
        return {key: value.copy() for key, value in rows if wanted is None or key in wanted}


class _TornShardError(Exception):
    """A file under the name of a shard is none."""


def remove_file(path: str) -> None:
    """Removes a file; it is no error if somebody else did."""
    try:
        FileSystems.delete([path])
    except OSError:
        if FileSystems.exists(path):
            raise


def _touch(path: str) -> None:
    """Notes that a shard was used, in its time of modification."""
    # Gone in between: nothing to note.
    with contextlib.suppress(OSError):
        if "://" not in path:
            os.utime(path)
            return
        # Object stores cannot set times; a copy within the store is new.
        copy = f"{path}.{uuid.uuid4().hex}.part"
        FileSystems.copy([path], [copy])
        FileSystems.rename([copy], [path])


def _make_directory(directory: str) -> None:
    try:
        FileSystems.mkdirs(directory)
    except OSError:
        # Another worker made it in between.
        if not FileSystems.exists(directory):
            raise
