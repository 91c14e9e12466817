"""What the executors here share about TFX artifacts."""

from collections.abc import Iterable

from tfx import types
from tfx.dsl.io import fileio
from tfx.types import artifact_utils
from tfx.utils import io_utils

from bivrec_tf.errors import DataError

COUNTS_PROPERTY = "counts"
"""Custom property of every output here: what was read, kept and dropped, as a JSON object."""


def matching_files(patterns: Iterable[str], what: str) -> list[str]:
    """Returns the files that match, sorted.

    Args:
        patterns: of files.
        what: what they hold, for the message.

    Raises:
        DataError: there are none.
    """
    files = sorted(name for pattern in patterns for name in fileio.glob(pattern))
    if not files:
        raise DataError(f"{what}: no files match {list(patterns)}")
    return files


def file_patterns(artifacts: list[types.Artifact]) -> list[str]:
    """Returns the patterns of all files of all splits of `Examples` artifacts."""
    return [
        io_utils.all_files_pattern(artifact_utils.get_split_uri([artifact], split))
        for artifact in artifacts
        for split in artifact_utils.decode_split_names(artifact.split_names)
    ]
