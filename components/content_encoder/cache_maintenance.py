"""What the cache of vectors holds, and keeping it below a size."""

import logging
import re
import time
from collections.abc import Iterable
from dataclasses import dataclass

from apache_beam.io.filesystem import FileMetadata
from apache_beam.io.filesystems import FileSystems

from components.content_encoder.vector_cache import remove_file

GIB = 1 << 30
# A process that writes a shard takes seconds; one that was killed never comes back.
_ABANDONED_AFTER_SECONDS = 24 * 3600
_FOLDER = re.compile(r"(?P<encoder>.+)-(?P<fingerprint>[^-]*)")
_SHARD = re.compile(r"\d+-[0-9a-f]+-(?P<vectors>\d+)\.npz")


@dataclass(frozen=True)
class CachedEncoder:
    """What is cached of one encoder.

    Attributes:
        name: the encoder's name.
        fingerprint: the beginning of its fingerprint.
        vectors: how many; those that two shards hold count twice.
        size: bytes.
        last_used: Unix seconds.
    """

    name: str
    fingerprint: str
    vectors: int
    size: int
    last_used: float


@dataclass(frozen=True)
class Removed:
    """What was removed.

    Attributes:
        shards: files.
        vectors: vectors in them.
        size: bytes.
    """

    shards: int
    vectors: int
    size: int


def cached_encoders(directory: str) -> list[CachedEncoder]:
    """Returns what a cache holds, by encoder; nothing if it does not exist."""
    shards: dict[str, list[FileMetadata]] = {}
    for shard in _shards(directory):
        shards.setdefault(shard.path.split("/")[-2], []).append(shard)
    encoders = []
    for folder, own in sorted(shards.items()):
        match = _FOLDER.fullmatch(folder)
        encoders.append(
            CachedEncoder(
                name=match["encoder"] if match else folder,
                fingerprint=match["fingerprint"] if match else "",
                vectors=sum(_vectors(shard) for shard in own),
                size=sum(shard.size_in_bytes for shard in own),
                last_used=max(shard.last_updated_in_seconds for shard in own),
            )
        )
    return encoders


def prune(directory: str, max_bytes: float, used_since: float | None = None) -> Removed:
    """Removes the least recently used shards until the cache is not above a size.

    Args:
        directory: the cache.
        max_bytes: the size.
        used_since: Unix seconds; shards used then or later stay. None: any may go.
    """
    shards = sorted(
        _shards(directory), key=lambda shard: (shard.last_updated_in_seconds, shard.path)
    )
    size = sum(shard.size_in_bytes for shard in shards)
    removed = []
    for shard in shards:
        if size <= max_bytes or (
            used_since is not None and shard.last_updated_in_seconds >= used_since
        ):
            break
        remove_file(shard.path)
        removed.append(shard)
        size -= shard.size_in_bytes
    _remove_abandoned(directory)
    if size > max_bytes:
        logging.getLogger(__name__).warning(
            "%s holds %.2f GiB, above the limit of %.2f GiB: this run used all of it. Raise "
            "content_cache_gib if it must not grow beyond.",
            directory,
            size / GIB,
            max_bytes / GIB,
        )
    return _count(removed)


def clear(directory: str) -> Removed:
    """Removes all vectors, and the folders of the encoders."""
    shards = _shards(directory)
    if FileSystems.exists(directory):
        FileSystems.delete([directory])
    return _count(shards)


def _shards(directory: str) -> list[FileMetadata]:
    files = FileSystems.match([FileSystems.join(directory, "*", "*.npz")])[0].metadata_list
    return [file for file in files if _SHARD.fullmatch(file.path.split("/")[-1])]


def _vectors(shard: FileMetadata) -> int:
    match = _SHARD.fullmatch(shard.path.split("/")[-1])
    return int(match["vectors"]) if match else 0


def _count(shards: Iterable[FileMetadata]) -> Removed:
    shards = list(shards)
    return Removed(
        len(shards),
        sum(_vectors(shard) for shard in shards),
        sum(shard.size_in_bytes for shard in shards),
    )


def _remove_abandoned(directory: str) -> None:
    """Removes what killed processes left half-written."""
    oldest = time.time() - _ABANDONED_AFTER_SECONDS
    pattern = FileSystems.join(directory, "*", "*.part")
    for file in FileSystems.match([pattern])[0].metadata_list:
        if file.last_updated_in_seconds < oldest:
            remove_file(file.path)
