"""`bivrec cache`: shows, prunes and clears what runs left."""

import os
import time

import numpy as np
import pytest
from click.testing import CliRunner

from components.content_encoder.vector_cache import VectorCache, bucket_of, content_key
from pipeline.cli import main


@pytest.fixture
def output(tmp_path):
    """An output folder with 40 vectors of an old encoder and 3 of a new one."""
    for fingerprint, count, days in (("0ld", 40, 9), ("n3w", 3, 0)):
        cache = VectorCache(str(tmp_path / "content_cache"), "my-encoder", fingerprint, 1024)
        for number in range(count):
            key = content_key(fingerprint, str(number))
            path = cache.write(bucket_of(key), {key: np.zeros(1024, np.float32)})
            moment = time.time() - days * 24 * 3600
            os.utime(path, (moment, moment))
    return tmp_path


def cache(*arguments):
    result = CliRunner().invoke(main, ["cache", *map(str, arguments)])
    assert result.exit_code == 0, result.output
    return result.output


def test_show_prune_and_clear(output):
    lines = [line.split() for line in cache("show", "--output", output).splitlines()]
    assert [line[:4] for line in lines[1:]] == [
        ["my-encoder", "0ld", "40", "0.2"],
        ["my-encoder", "n3w", "3", "0.0"],
    ]
    # Shards of one vector each, all of one size: 13 of the 43 fit.
    (size,) = {path.stat().st_size for path in output.rglob("*.npz")}
    told = cache("prune", "--output", output, "--max-gib", 13.5 * size / 2**30)
    assert told == f"Removed 30 vectors, {30 * size / 2**20:.1f} MiB\n"
    assert " n3w " in cache("show", "--output", output), "the older ones go first"
    assert "Removed 0 vectors" in cache("prune", "--output", output, "--max-gib", 1)
    cache("clear", "--output", output)
    assert "Nothing is cached." in cache("show", "--output", output)


def test_help_and_errors_of_the_command(tmp_path):
    assert "content_cache_gib" in cache("--help")
    assert "Nothing is cached." in cache("show", "--output", tmp_path)
    for arguments in (
        ["show", "--output", str(tmp_path / "nowhere")],
        ["prune", "--output", str(tmp_path), "--max-gib", "-1"],
        ["prune", "--output", str(tmp_path)],
    ):
        assert CliRunner().invoke(main, ["cache", *arguments]).exit_code == 2
