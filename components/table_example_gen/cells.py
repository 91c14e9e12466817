"""From one cell of a user's table to the value of a feature, or to an error that says why not.

Every function takes the cell as the reader gave it (a Python object from Arrow, or a string from
CSV) and raises `CellError` with the expectation; the caller adds file, row and column.
"""

import datetime
import decimal
import json
import math
from typing import Any

import numpy as np

from bivrec_tf import features

MAX_ID_BYTES = 512
MAX_PATH_BYTES = 4096
# Later than the year 5000 in seconds, and March 1973 in milliseconds: surely not seconds.
MILLISECONDS_FROM = 10**11
SPLIT_ALIASES = {
    "train": features.TRAIN_SPLIT,
    "training": features.TRAIN_SPLIT,
    "validation": features.VALIDATION_SPLIT,
    "valid": features.VALIDATION_SPLIT,
    "val": features.VALIDATION_SPLIT,
    "test": features.TEST_SPLIT,
}


class CellError(ValueError):
    """A cell is not what was expected; the message says what was, and what to do."""


def is_missing(cell: Any) -> bool:
    """Returns whether a cell holds nothing: null, NaN, or only white space."""
    if cell is None:
        return True
    if isinstance(cell, float):
        return math.isnan(cell)
    if isinstance(cell, str | bytes):
        return not cell.strip()
    return False


def identifier(cell: Any) -> bytes:
    """Returns a user's or an item's id as UTF-8 bytes; integers as decimal strings.

    Raises:
        CellError: null, empty, a floating-point number, too long, or with a NUL or line end.
    """
    if is_missing(cell):
        raise CellError("is missing or empty. Expected an id in every row; remove the row")
    if isinstance(cell, bool):
        raise CellError("is a boolean. Expected a string or an integer")
    if isinstance(cell, int):
        return str(cell).encode()
    if isinstance(cell, float | decimal.Decimal):
        raise CellError(
            "is a floating-point number. Expected a string or an integer; pandas turns integers "
            "into floats when the column has missing values, so drop those rows and save the "
            "column as integers"
        )
    if isinstance(cell, str):
        value = cell.encode("utf-8")
    elif isinstance(cell, bytes):
        value = cell
    else:
        raise CellError(f"is of type {type(cell).__name__}. Expected a string or an integer")
    if len(value) > MAX_ID_BYTES:
        raise CellError(f"has {len(value)} bytes. Expected at most {MAX_ID_BYTES}")
    if b"\0" in value or b"\n" in value or b"\r" in value:
        raise CellError("holds a NUL or a line end. Expected an id on one line; clean the column")
    return value


def timestamp(cell: Any) -> int:
    """Returns Unix seconds; dates and times without a zone are taken as UTC.

    Raises:
        CellError: missing, not a time, a fraction of a second, or in milliseconds.
    """
    if is_missing(cell):
        raise CellError("is missing. Expected a time in every row; remove the row")
    if isinstance(cell, datetime.datetime | datetime.date):
        return _seconds(cell)
    if isinstance(cell, str | bytes):
        cell = _parse_time(cell.decode("utf-8", "replace") if isinstance(cell, bytes) else cell)
    if isinstance(cell, bool) or not isinstance(cell, int | float | decimal.Decimal):
        raise CellError(f"is of type {type(cell).__name__}. {_EXPECTED_TIME}")
    if not math.isfinite(cell) or cell != int(cell):
        raise CellError(f"is not a whole number. {_EXPECTED_TIME}")
    seconds = int(cell)
    if abs(seconds) > MILLISECONDS_FROM:
        raise CellError(
            "looks like milliseconds (or finer). Expected Unix seconds; divide the column by "
            "1000 (10**6, 10**9)"
        )
    return seconds


_EXPECTED_TIME = "Expected Unix seconds (a whole number) or an ISO-8601 date or time"


def _parse_time(text: str) -> int | float:
    """Returns the seconds that a text stands for: a number, or ISO-8601."""
    text = text.strip()
    try:
        return int(text)
    except ValueError:
        pass
    try:
        return float(text)
    except ValueError:
        pass
    try:
        return _seconds(datetime.datetime.fromisoformat(text))
    except ValueError:
        raise CellError(f"is not a time. {_EXPECTED_TIME}") from None


def _seconds(moment: datetime.datetime | datetime.date) -> int:
    if not isinstance(moment, datetime.datetime):
        moment = datetime.datetime.combine(moment, datetime.time())
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=datetime.UTC)
    return math.floor(moment.timestamp())


def split_name(cell: Any) -> bytes:
    """Returns the canonical name of a split that the data brings along.

    Raises:
        CellError: the cell names no split.
    """
    text = cell.decode("utf-8", "replace") if isinstance(cell, bytes) else str(cell)
    name = SPLIT_ALIASES.get(text.strip().lower())
    if name is None:
        raise CellError(f"names no split. Expected one of {', '.join(SPLIT_ALIASES)}")
    return name.encode()


def texts(cell: Any) -> list[bytes]:
    """Returns the texts of a cell, one for a scalar, several for a list, none if it is missing.

    Raises:
        CellError: the cell holds something that is not text (a struct, a nested list).
    """
    if isinstance(cell, list | tuple):
        return [text for element in cell for text in _scalar_text(element)]
    return _scalar_text(cell)


def _scalar_text(cell: Any) -> list[bytes]:
    if is_missing(cell):
        return []
    if isinstance(cell, str):
        return [cell.encode("utf-8")]
    if isinstance(cell, bytes):
        return [cell]
    if isinstance(cell, bool):
        return [b"true" if cell else b"false"]
    if isinstance(cell, int | float | decimal.Decimal):
        return [str(cell).encode()]
    if isinstance(cell, datetime.datetime | datetime.date):
        return [cell.isoformat().encode()]
    raise CellError(f"is of type {type(cell).__name__}. Expected a text or a list of texts")


def picture(cell: Any) -> bytes | None:
    """Returns the content of a picture file, or the UTF-8 bytes of the path to one.

    Raises:
        CellError: neither, or a path that is not taken: out of the table's folder, or on the web.
    """
    if is_missing(cell):
        return None
    if not isinstance(cell, str | bytes):
        raise CellError(
            f"is of type {type(cell).__name__}. Expected the path of one picture, or its bytes"
        )
    content = cell.strip().encode("utf-8") if isinstance(cell, str) else cell
    path = picture_path(content)
    if path is None:
        if isinstance(cell, str):
            raise CellError("is text but no path. Expected the path of a picture, or its bytes")
        return content
    scheme = path.partition("://")[0].lower()
    if scheme in ("http", "https"):
        raise CellError(
            "is a web address. Download the pictures first, and write their paths into the table"
        )
    if "://" not in path and not path.startswith("/") and ".." in path.split("/"):
        raise CellError(
            "leads out of the table's folder. Expected a path relative to it without '..', an "
            "absolute path, or a URI"
        )
    return path.encode()


def picture_path(content: bytes) -> str | None:
    """Returns the path that a picture's cell holds, or None if it holds the picture itself.

    Formats that hold only bytes do not tell the two apart, but their content does: a path is a
    line of UTF-8 text, and every picture format has bytes that no such line has.
    """
    if len(content) > MAX_PATH_BYTES:
        return None
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError:
        return None
    return text.strip() if text.isprintable() else None


def embedding(cell: Any) -> np.ndarray | None:
    """Returns float32 [d], or None if the cell is missing or an empty list.

    Raises:
        CellError: not a flat list of numbers, or not finite.
    """
    if is_missing(cell):
        return None
    if isinstance(cell, str | bytes):
        try:
            cell = json.loads(cell)
        except ValueError:
            raise CellError("is not a list. Expected numbers as JSON, such as [0.5, -1]") from None
    try:
        vector = np.asarray(cell, dtype=np.float32)
    except (TypeError, ValueError):
        raise CellError("is not a list of numbers. Expected one number for a dimension") from None
    if vector.ndim != 1:
        raise CellError(f"has {vector.ndim} dimensions. Expected a flat list of numbers")
    if vector.size == 0:
        return None
    finite = np.isfinite(vector)
    if not finite.all():
        place = int(np.argmin(finite))
        raise CellError(
            f"is not finite at position {place} ({vector[place]}). Expected finite numbers; "
            "leave the cell empty where there is no feature"
        )
    return vector
