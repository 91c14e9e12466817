"""Items that are switched off in a served model, by a file beside it."""

import os
import tempfile

import tensorflow as tf

UNAVAILABLE_FILE = "unavailable_items.txt"
"""In `assets` of an exported model: ids that are never recommended, one a line; read on loading."""


class UnavailableItems(tf.Module):
    """Rows of the items that `UNAVAILABLE_FILE` names.

    The file is an asset of the exported model, empty at first. Whoever serves the model writes
    ids into it, of what is out of stock, and loads the version again: no export is needed. Ids
    that the model does not know are counted in the server's log.

    Args:
      item_ids: string variable `[rows]`, "" first.
    """

    def __init__(self, item_ids: tf.Variable) -> None:
        super().__init__()
        self._folder = tempfile.TemporaryDirectory()
        path = os.path.join(self._folder.name, UNAVAILABLE_FILE)
        with open(path, "w", encoding="utf-8"):
            pass
        # Rows as the keys of a table: tables are filled again whenever a model is loaded.
        self._table = tf.lookup.StaticHashTable(_RowsOfFile(path, item_ids), default_value=0)

    def rows(self) -> tf.Tensor:
        """Returns int32 `[m]`, the rows of the items that are switched off, padding among them."""
        return tf.cast(self._table.export()[0], tf.int32)


class _RowsOfFile(tf.lookup.TextFileInitializer):
    """Fills a table with the rows of the ids in a file."""

    def __init__(self, path: str, item_ids: tf.Variable) -> None:
        super().__init__(
            path,
            tf.string,
            tf.lookup.TextFileIndex.WHOLE_LINE,
            tf.int64,
            tf.lookup.TextFileIndex.LINE_NUMBER,
        )
        # The table's own types: rows, not lines.
        self._key_dtype = tf.int64
        self._item_ids = item_ids

    def initialize(self, table):
        """Reads the file, and sets the table's keys."""
        text = tf.io.read_file(self._filename)
        lines = tf.strings.strip(tf.strings.split(text, "\n"))
        lines = tf.boolean_mask(lines, lines != "")
        lines, _ = tf.unique(lines)
        ids = self._item_ids.value()
        # Ids are unique: what is numbered among them is known, and its number is its row.
        _, numbers = tf.unique(tf.concat([ids, lines], axis=0), out_idx=tf.int64)
        rows = numbers[tf.size(ids) :]
        is_known = rows < tf.size(ids, out_type=tf.int64)
        known = tf.boolean_mask(rows, is_known)
        unknown = tf.size(rows) - tf.size(known)
        told = tf.cond(
            tf.size(rows) > 0,
            lambda: _tell(tf.size(known), unknown),
            lambda: tf.no_op(),
        )
        # A table cannot be empty; row 0, padding, is never recommended anyway.
        keys = tf.concat([[tf.constant(0, tf.int64)], known], axis=0)
        with tf.control_dependencies([told] if told is not None else []):
            return tf.raw_ops.LookupTableImportV2(
                table_handle=table.resource_handle, keys=keys, values=tf.ones_like(keys)
            )


def _tell(known, unknown):
    tf.print(UNAVAILABLE_FILE, "switches off", known, "items; ids that are unknown:", unknown)
    return tf.no_op()
