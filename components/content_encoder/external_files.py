"""Noticing that a file changed which the item table or the configuration only names."""

import hashlib
import os

from bivrec_tf.errors import DataError
from components.content_encoder.content_config import (
    ContentConfig,
    ImageModality,
    PrecomputedModality,
)
from components.content_encoder.pictures import locate
from components.table_example_gen.cells import CellError, is_missing, picture, picture_path
from components.table_example_gen.sources import plan_slices, read_slice


def fingerprint(config: ContentConfig, table: str) -> str:
    """Returns a digest of all pictures and feature files by path, size and time of modification.

    To be computed where the pipeline is built: an execution is taken for one that was done before
    when its inputs and parameters are the same, and the table is, although a picture is not.
    Only files of this machine count, because nobody wants to ask a bucket for every picture while
    a pipeline is compiled; "" if there are none.

    Args:
        config: the configuration.
        table: path or glob pattern of the item table. If it cannot be read, nothing is raised
            here: the component that reads it tells what is wrong.
    """
    paths = set()
    for modality in config.modalities:
        if isinstance(modality, PrecomputedModality):
            paths |= {path for path in (modality.file, modality.ids) if path is not None}
    columns = [m.column for m in config.modalities if isinstance(m, ImageModality)]
    if columns and "://" not in table:
        paths |= _pictures(table, list(dict.fromkeys(columns)), config.picture_folder)
    local = sorted(path for path in paths if "://" not in path)
    if not local:
        return ""
    digest = hashlib.sha256()
    for path in local:
        try:
            status = os.stat(path)
            state = f"{status.st_size} {status.st_mtime_ns}"
        except OSError:
            state = "missing"
        digest.update(f"{path}\0{state}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def _pictures(table: str, columns: list[str], folder: str) -> set[str]:
    """Returns where the pictures of a table are, without those in the table itself."""
    paths = set()
    try:
        for part in plan_slices(table, columns):
            for row in read_slice(part, columns):
                for cell in row.cells:
                    if is_missing(cell):
                        continue
                    try:
                        path = picture_path(picture(cell) or b"")
                        if path:
                            paths.add(locate(path, folder))
                    except CellError:
                        continue
    except DataError:
        return set()
    return paths
