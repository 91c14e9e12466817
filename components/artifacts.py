"""What the executors here share about TFX artifacts."""

from tfx import types
from tfx.types import artifact_utils
from tfx.utils import io_utils

COUNTS_PROPERTY = "counts"
"""Custom property of every output here: what was read, kept and dropped, as a JSON object."""


def file_patterns(artifacts: list[types.Artifact]) -> list[str]:
    """Returns the patterns of all files of all splits of `Examples` artifacts."""
    return [
        io_utils.all_files_pattern(artifact_utils.get_split_uri([artifact], split))
        for artifact in artifacts
        for split in artifact_utils.decode_split_names(artifact.split_names)
    ]
