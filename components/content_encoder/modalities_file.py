"""`modalities.json` of the item features: what each vector is, and what made it."""

import json
from collections.abc import Mapping
from typing import TypedDict

from apache_beam.io.filesystems import FileSystems

from bivrec_tf.errors import DataError

MODALITIES_FILE = "modalities.json"


class ModalityInfo(TypedDict):
    """What a consumer of item features wants to know of a modality.

    Attributes:
        dimension: length of the vectors; None if no item has one.
        kind: `text`, `image` or `precomputed`.
        encoder: the encoder's `name`; `made_by`, or None, for precomputed vectors.
        fingerprint: the encoder's `fingerprint`; `made_by`, or None, for precomputed vectors.
    """

    dimension: int | None
    kind: str
    encoder: str | None
    fingerprint: str | None


def write_modalities(uri: str, modalities: Mapping[str, ModalityInfo]) -> None:
    """Writes the file.

    Args:
        uri: of the artifact `item_features`.
        modalities: by name, in the order of the configuration.
    """
    with FileSystems.create(FileSystems.join(uri, MODALITIES_FILE)) as file:
        file.write(json.dumps(modalities, indent=2).encode())


def read_modalities(uri: str) -> dict[str, ModalityInfo]:
    """Returns what `write_modalities` wrote, by name.

    Args:
        uri: of the artifact `item_features`.

    Raises:
        DataError: there is no such file, or it is not what was written.
    """
    path = FileSystems.join(uri, MODALITIES_FILE)
    try:
        with FileSystems.open(path) as file:
            return json.loads(file.read())
    except (OSError, ValueError) as error:
        raise DataError(
            f"{path}: cannot be read ({error}). Expected what ContentEncoder writes beside the "
            "item features; run the pipeline again."
        ) from error
