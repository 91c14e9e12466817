"""The user's tables, read for people: a user's history, and what items are called."""

from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any

from bivrec_tf import features
from bivrec_tf.errors import DataError
from components.table_example_gen import cells
from components.table_example_gen.sources import plan_slices, read_slice
from pipeline.config import ItemSource, TableSource


def read_history(source: TableSource, user_id: str) -> list[str]:
    """Returns a user's items, oldest first.

    Args:
      source: The interactions.
      user_id: The user.

    Raises:
      DataError: The table cannot be read, or does not know the user.
    """
    return read_histories(source, [user_id])[user_id]


def read_histories(source: TableSource, user_ids: Collection[str]) -> dict[str, list[str]]:
    """Returns the items of several users, oldest first, in one pass over the table.

    Args:
      source: The interactions.
      user_ids: The users.

    Raises:
      DataError: The table cannot be read, or does not know one of the users.
    """
    names = (features.USER_ID, features.ITEM_ID, features.TIMESTAMP)
    found: dict[str, list[tuple[int, int, str]]] = {user: [] for user in user_ids}
    for number, (user, item, time) in _rows(source, names):
        if user in found:
            found[user].append((time, number, item))
    unknown = [user for user, events in found.items() if not events]
    if unknown:
        raise DataError(f"{source.path}: no interactions of user {', '.join(map(repr, unknown))}")
    # An item counts once, where it first stands, as in training.
    return {
        user: list(dict.fromkeys(item for _, _, item in sorted(events)))
        for user, events in found.items()
    }


def first_users(source: TableSource, count: int) -> list[str]:
    """Returns the users that a table names first.

    Raises:
      DataError: The table cannot be read.
    """
    found: dict[str, None] = {}
    for _, (user,) in _rows(source, (features.USER_ID,)):
        found[user] = None
        if len(found) == count:
            break
    return list(found)


def read_titles(source: ItemSource) -> dict[str, str]:
    """Returns what items are called; empty when the configuration names no title column.

    Raises:
      DataError: The table cannot be read.
    """
    if source.title is None:
        return {}
    titles = {}
    for _, (item, title) in _rows(source, (features.ITEM_ID, source.title)):
        if title:
            titles[item] = title
    return titles


def _identifier(cell: Any) -> str:
    return cells.identifier(cell).decode()


def _text(cell: Any) -> str:
    return b" ".join(cells.texts(cell)).decode()


_PARSERS: dict[str, Callable[[Any], Any]] = {
    features.USER_ID: _identifier,
    features.ITEM_ID: _identifier,
    features.TIMESTAMP: cells.timestamp,
}


def _rows(source: TableSource, names: Sequence[str]) -> Iterator[tuple[int, list[Any]]]:
    """Position and parsed cells of every row; other columns than ids and times are text."""
    columns = [source.columns.get(name, name) for name in names]
    parsers = [_PARSERS.get(name, _text) for name in names]
    for part in plan_slices(source.path, columns):
        for row in read_slice(part, columns):
            values = []
            for column, parse, cell in zip(columns, parsers, row.cells, strict=True):
                try:
                    values.append(parse(cell))
                except cells.CellError as error:
                    raise DataError(f"{row.place()}, column {column!r}: {error}") from error
            yield row.number, values
