"""Where the pictures of an item table are, and reading them."""

import os

from apache_beam.io.filesystem import CompressionTypes
from apache_beam.io.filesystems import FileSystems

from components.table_example_gen.cells import CellError

MAX_PICTURE_BYTES = 64 << 20


class UnreadableError(Exception):
    """A content has no vector; the message is a phrase that says why."""


def locate(path: str, folder: str) -> str:
    """Returns the path or URI to open for what a cell says.

    Args:
        path: of a cell, as `picture_path` returns it.
        folder: where relative paths start.

    Raises:
        CellError: a relative path leads out of the folder, by ".." or by symbolic links.
    """
    if path.startswith("file://"):
        return path.removeprefix("file://")
    if "://" in path or os.path.isabs(path):
        return path
    if ".." in path.split("/"):
        raise CellError("leads out of the item table's folder. Write an absolute path instead")
    if "://" in folder:
        return f"{folder.rstrip('/')}/{path}"
    inside = os.path.realpath(folder)
    located = os.path.realpath(os.path.join(folder, path))
    if os.path.commonpath([inside, located]) != inside:
        raise CellError(
            f"leads through a symbolic link to {located}, out of the item table's folder {inside}. "
            "Copy the picture there, or write an absolute path"
        )
    return located


def read_picture(path: str) -> bytes:
    """Returns the content of a picture file.

    Raises:
        UnreadableError: there is no such file, it is empty or too large, or cannot be opened.
    """
    try:
        # A pipe or a device could keep the run waiting for ever.
        if "://" not in path and os.path.exists(path) and not _opens(path):
            raise UnreadableError("it is not a regular file")
        # Beam's local file system hides the reason; it is for everything else.
        with (
            FileSystems.open(path, compression_type=CompressionTypes.UNCOMPRESSED)
            if "://" in path
            else open(path, "rb")
        ) as file:
            content = file.read(MAX_PICTURE_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UnreadableError(reason) from error
    check_size(content)
    return content


def _opens(path: str) -> bool:
    # A folder does not open either, but says so at once.
    return os.path.isfile(path) or os.path.isdir(path)


def check_size(content: bytes) -> None:
    """Checks the size of a picture.

    Raises:
        UnreadableError: it is empty or too large.
    """
    if not content:
        raise UnreadableError("the file is empty")
    if len(content) > MAX_PICTURE_BYTES:
        raise UnreadableError(f"it has more than {MAX_PICTURE_BYTES >> 20} MiB")
