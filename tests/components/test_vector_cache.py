"""Shards of vectors: merged when a bucket is done, read while others merge, kept below a size."""

import os
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from components.content_encoder.cache_maintenance import cached_encoders, clear, prune
from components.content_encoder.content_config import ContentConfig
from components.content_encoder.vector_cache import MAX_SHARDS, VectorCache, bucket_of, content_key

DAY = 24 * 3600


@pytest.fixture
def letters(cache):
    return VectorCache(str(cache), "letters", "0123456789abcdef0123", 3)


def vectors_of(bucket, count, first=0):
    """Returns contents of one bucket: key -> a vector that tells which."""
    vectors: dict[bytes, np.ndarray] = {}
    number = first
    while len(vectors) < count:
        key = content_key("print", f"text {number}")
        if bucket_of(key) == bucket:
            vectors[key] = np.full(3, number, np.float32)
        number += 1
    return vectors


def same(read, expected):
    return read.keys() == expected.keys() and all(
        np.array_equal(read[key], vector) for key, vector in expected.items()
    )


def shards(cache):
    return sorted(cache.rglob("*.npz"))


def age(path, days):
    moment = time.time() - days * DAY
    os.utime(path, (moment, moment))


def test_only_what_is_wanted_is_read(letters):
    vectors = vectors_of(5, 20)
    letters.write(5, vectors)
    wanted = dict(list(vectors.items())[:3])
    assert same(letters.read(5, wanted), wanted)
    assert letters.read(6, vectors) == {}


def test_a_shard_with_any_byte_flipped_is_read_right_or_not_at_all(cache):
    vectors = vectors_of(5, 2)
    letters = VectorCache(str(cache), "letters", "0123456789abcdef0123", 3)
    path = Path(letters.write(5, vectors))
    content = path.read_bytes()
    for place in range(len(content)):
        for bit in (0x01, 0x80):
            damaged = bytearray(content)
            damaged[place] ^= bit
            path.write_bytes(damaged)
            found = letters.read(5, vectors)
            assert found.keys() <= vectors.keys()
            assert all(np.array_equal(found[key], vectors[key]) for key in found)


def test_a_runs_shards_become_one_and_older_ones_keep_their_age(letters, cache):
    old = vectors_of(5, 4)
    path = letters.write(5, old)
    age(path, 30)
    new = vectors_of(5, 9, first=10_000)
    parts = list(new.items())
    letters.merge(5, [letters.write(5, dict(parts[n : n + 3])) for n in range(0, 9, 3)])
    assert len(shards(cache)) == 2
    assert os.path.getmtime(path) < time.time() - 29 * DAY
    assert same(letters.read(5, [*old, *new]), old | new)


def test_too_many_shards_of_many_runs_become_one(letters, cache):
    vectors = vectors_of(5, MAX_SHARDS + 1)
    for number, (key, vector) in enumerate(vectors.items()):
        letters.merge(5, [letters.write(5, {key: vector})])
        assert len(shards(cache)) == (number + 1 if number < MAX_SHARDS else 1)
    (shard,) = shards(cache)
    assert shard.name.endswith(f"-{MAX_SHARDS + 1}.npz")
    assert same(letters.read(5, vectors), vectors)
    # Shards that nobody can read do not survive, and do not count any more.
    for number in range(MAX_SHARDS):
        shard.with_name(f"05-{number:024x}-1.npz").write_bytes(b"torn")
    letters.merge(5, [])
    assert len(shards(cache)) == 1
    assert same(letters.read(5, vectors), vectors)


def test_readers_survive_merges_of_others(cache, letters):
    """One process merges over and over; a reader must find every finished vector each time."""
    first = vectors_of(5, 30)
    letters.write(5, first)
    stop = threading.Event()
    failures = []

    def read():
        reader = VectorCache(str(cache), "letters", "0123456789abcdef0123", 3)
        while not stop.is_set():
            found = reader.read(5, first)
            if not same(found, first):
                failures.append(len(found))

    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    more = vectors_of(5, 8 * MAX_SHARDS, first=100_000)
    for key, vector in more.items():
        letters.write(5, {key: vector})
        letters.merge(5, [])
    stop.set()
    for reader in readers:
        reader.join()
    assert failures == []
    assert same(letters.read(5, [*first, *more]), first | more)


def test_the_least_recently_used_go_until_the_size_is_met(letters, cache):
    paths = [letters.write(bucket, vectors_of(bucket, 5)) for bucket in range(4)]
    for path, days in zip(paths, (4, 3, 2, 1), strict=True):
        age(path, days)
    size = os.path.getsize(paths[0])
    # Reading is use: the oldest becomes the youngest.
    letters.read(0, vectors_of(0, 5))
    removed = prune(str(cache), 2.5 * size)
    assert (removed.shards, removed.vectors, removed.size) == (2, 10, 2 * size)
    assert [path for path in paths if os.path.exists(path)] == [paths[0], paths[3]]
    assert prune(str(cache), 2.5 * size).shards == 0


def test_what_a_run_used_stays_and_the_log_says_that_it_is_too_much(letters, cache, caplog):
    paths = [letters.write(bucket, vectors_of(bucket, 5)) for bucket in range(3)]
    age(paths[2], 1)
    assert prune(str(cache), 0, used_since=time.time() - 3600).shards == 1
    assert [path for path in paths if os.path.exists(path)] == paths[:2]
    assert "above the limit" in caplog.text and "content_cache_gib" in caplog.text


def test_what_killed_processes_left_goes_after_a_day(letters, cache):
    shard = letters.write(0, vectors_of(0, 5))
    for name, days in (("new", 0), ("old", 2)):
        part = cache / "letters-0123456789abcdef" / f"{name}.part"
        part.write_bytes(b"half")
        age(part, days)
    prune(str(cache), 1 << 30)
    assert sorted(path.name for path in cache.rglob("*.part")) == ["new.part"]
    assert os.path.exists(shard)


def test_what_is_cached_is_listed_by_encoder(letters, cache):
    assert cached_encoders(str(cache)) == []
    path = letters.write(0, vectors_of(0, 5))
    age(path, 2)
    letters.write(1, vectors_of(1, 2))
    VectorCache(str(cache), "all-minilm-l6-v2", "fedcba9876543210", 3).write(2, vectors_of(2, 1))
    minilm, own = cached_encoders(str(cache))
    assert (minilm.name, minilm.fingerprint, minilm.vectors) == (
        "all-minilm-l6-v2",
        "fedcba9876543210",
        1,
    )
    assert (own.name, own.vectors) == ("letters", 7)
    assert own.size == sum(path.stat().st_size for path in shards(cache) if "letters" in str(path))
    assert own.last_used > time.time() - DAY
    assert clear(str(cache)).vectors == 8
    assert not cache.exists()
    assert clear(str(cache)).shards == 0


def test_a_run_keeps_the_cache_below_its_limit(encode, cache):
    """The second catalogue shares one text with the first; what only the first had must go."""
    modality = {"name": "text", "kind": "text", "columns": ["title"]}
    modality["encoder"] = "user_encoders:LetterEncoder"
    first = [{"item_id": [b"%d" % n], "title": [b"abc %d" % n]} for n in range(100)]
    assert encode(first, ContentConfig(modalities=[modality])).counts["cache_removed"] == 0
    for shard in shards(cache):
        age(shard, 1)
    held = sum(encoder.vectors for encoder in cached_encoders(str(cache)))
    second = [first[0], {"item_id": [b"new"], "title": [b"bed"]}]
    counts = encode(second, ContentConfig(modalities=[modality], cache_gib=0)).counts
    assert (counts["text_cache_hits"], counts["text_encoded"]) == (1, 1)
    left = sum(encoder.vectors for encoder in cached_encoders(str(cache)))
    assert counts["cache_removed"] == held + 1 - left
    assert 2 <= left < 10
    assert encode(second, ContentConfig(modalities=[modality])).counts["text_cache_hits"] == 2
