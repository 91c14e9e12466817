"""First step of the ContentEncoder: an item row, taken apart by modality."""

import functools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import apache_beam as beam
import numpy as np
import tensorflow as tf
from apache_beam.transforms.window import GlobalWindow
from apache_beam.utils.windowed_value import WindowedValue

from bivrec_tf import features
from bivrec_tf.errors import DataError
from components import example_features
from components.beam_support import increment
from components.content_encoder import pictures
from components.content_encoder.content_config import (
    ContentConfig,
    ImageModality,
    PrecomputedModality,
    TextModality,
)
from components.content_encoder.feature_file import FeatureFile
from components.content_encoder.process_local import once_in_process
from components.content_encoder.spill import BlobWriter, Entry, SpillWriter
from components.content_encoder.vector_cache import bucket_of, content_key
from components.table_example_gen.cells import CellError, picture_path

NAMESPACE = "bivrec/content_encoder"
POINTERS = "pointers"
LENGTHS = "lengths"
UNREADABLE = "unreadable"
# Tag of an entry that says no more than that there is such an item.
ITEM_TAG = 255


def contents_tag(name: str) -> str:
    """Returns the output that holds a modality's contents."""
    return f"contents_{name}"


def join_texts(columns: Sequence[Sequence[bytes]]) -> str:
    """Returns the one text of several columns, such as "Tangled (2010). Animation, Comedy.".

    The values of a column are joined by ", ", and each column that has any ends with "." unless
    it already ends a sentence; columns are joined by a space. Nothing at all gives "".
    """
    sentences = []
    for values in columns:
        text = ", ".join(value.decode("utf-8", "replace").strip() for value in values).strip()
        if text:
            sentences.append(text if text[-1] in ".!?" else f"{text}.")
    return " ".join(sentences)


class SplitModalities(beam.DoFn):
    """Serialised item row -> its parts.

    Main output: (partition, pointer to entries): every item, and vectors that pass through.
    `contents_<modality>`: (bucket, (key, item id, size, reference)), where the reference is a text,
    the path of a picture, or a pointer to one; pictures themselves stay out of the shuffle.
    `lengths`: ((modality, length), item id) of embedding columns.
    `unreadable`: (modality, (item id, where, why)).

    Args:
        config: the configuration.
        fingerprints: of the encoders, by modality.
        work_directory: for large values; must be seen by all workers.
        run: see `once_in_process`.
    """

    def __init__(
        self,
        config: ContentConfig,
        fingerprints: Mapping[str, str],
        work_directory: str,
        run: str,
    ):
        self._config = config
        self._fingerprints = dict(fingerprints)
        self._work_directory = work_directory
        self._run = run

    def setup(self) -> None:
        """Opens the files of precomputed features, once in a process."""
        self._files = open_files(self._config, self._run)

    def start_bundle(self) -> None:
        """Begins new files: those of a bundle that is repeated are never read."""
        self._spill = SpillWriter(self._work_directory)
        self._blobs = BlobWriter(self._work_directory)

    def process(self, record: bytes) -> Iterator[Any]:
        """Splits one item; see the class."""
        example = tf.train.Example.FromString(record)
        item_id = example_features.get_bytes(example, features.ITEM_ID)[0]
        increment(NAMESPACE, "items")
        yield from self._spill.add(Entry(item_id, ITEM_TAG, b""))
        for tag, modality in enumerate(self._config.modalities):
            if isinstance(modality, TextModality):
                yield from self._text(example, item_id, modality)
                continue
            if isinstance(modality, ImageModality):
                yield from self._picture(example, item_id, modality)
                continue
            if modality.file is not None:
                vector = self._row(example, item_id, modality)
            else:
                vector = _checked_embedding(example, item_id, modality)
                if vector is not None:
                    length = (modality.name, len(vector))
                    yield beam.pvalue.TaggedOutput(LENGTHS, (length, item_id))
            if vector is not None:
                yield from self._spill.add(Entry(item_id, tag, vector.tobytes()))

    def finish_bundle(self) -> Iterator[WindowedValue]:
        """Writes what is held."""
        self._blobs.close()
        for pointer in self._spill.flush():
            yield WindowedValue(pointer, GlobalWindow().max_timestamp(), [GlobalWindow()])

    def _text(
        self, example: tf.train.Example, item_id: bytes, modality: TextModality
    ) -> Iterator[beam.pvalue.TaggedOutput]:
        for column in modality.columns:
            _check_column(example, item_id, column, "text_columns")
        text = join_texts([example_features.get_bytes(example, c) for c in modality.columns])
        if text:
            key = content_key(self._fingerprints[modality.name], text)
            yield _content(modality.name, key, item_id, len(text), text)

    def _picture(
        self, example: tf.train.Example, item_id: bytes, modality: ImageModality
    ) -> Iterator[beam.pvalue.TaggedOutput]:
        _check_column(example, item_id, modality.column, "image_columns")
        cell = next(iter(example_features.get_bytes(example, modality.column)), None)
        if cell is None:
            return
        path = picture_path(cell)
        where = f"bytes in column '{modality.column}'" if path is None else path
        try:
            if path is None:
                pictures.check_size(cell)
                content = cell
            else:
                where = self._locate(example, item_id, modality, path)
                content = pictures.read_picture(where)
        except pictures.UnreadableError as error:
            yield unreadable(modality.name, item_id, where, str(error))
            return
        key = content_key(self._fingerprints[modality.name], content)
        reference = where if path is not None else self._blobs.add(content)
        yield _content(modality.name, key, item_id, len(content), reference)

    def _locate(
        self, example: tf.train.Example, item_id: bytes, modality: ImageModality, path: str
    ) -> str:
        try:
            return pictures.locate(path, self._config.picture_folder)
        except CellError as error:
            row = next(iter(example_features.get_integers(example, features.ROW)), None)
            place = "" if row is None else f"row {row}, "
            raise DataError(
                f"items, {place}item {_show(item_id)}, column '{modality.column}': {path!r:.200} "
                f"{error}."
            ) from None

    def _row(
        self, example: tf.train.Example, item_id: bytes, modality: PrecomputedModality
    ) -> np.ndarray | None:
        """Returns the item's vector of a file, or None if it has no row there."""
        file = self._files[modality.name]
        if file.row_of is not None:
            row = file.row_of.get(item_id)
            return None if row is None else file.vector(row)
        row = example_features.get_integers(example, features.ROW)[0]
        if row >= len(file):
            raise DataError(
                f"{file.path}: has {len(file):,} rows, but item {_show(item_id)} is in row {row} "
                "of the item table. Without `ids`, row i of the file belongs to row i of the table."
            )
        return file.vector(row)


def open_files(config: ContentConfig, run: str) -> dict[str, FeatureFile]:
    """Returns the files of precomputed features, by modality; opened once in a process.

    Args:
        config: names the files.
        run: see `once_in_process`.

    Raises:
        DataError: see `FeatureFile`.
    """
    return {
        modality.name: once_in_process(
            run, f"file {modality.name}", functools.partial(FeatureFile, modality)
        )
        for modality in config.modalities
        if isinstance(modality, PrecomputedModality) and modality.file is not None
    }


def unreadable(name: str, item_id: bytes, where: str, reason: str) -> beam.pvalue.TaggedOutput:
    """Counts an item whose content has no vector, and returns the output that reports it."""
    increment(NAMESPACE, f"{name}_unreadable")
    report = (item_id.decode("utf-8", "replace"), where, reason)
    return beam.pvalue.TaggedOutput(UNREADABLE, (name, report))


def _content(
    name: str, key: bytes, item_id: bytes, size: int, reference: Any
) -> beam.pvalue.TaggedOutput:
    return beam.pvalue.TaggedOutput(
        contents_tag(name), (bucket_of(key), (key, item_id, size, reference))
    )


def _show(item_id: bytes) -> str:
    return repr(item_id.decode("utf-8", "replace"))


def _check_column(example: tf.train.Example, item_id: bytes, column: str, setting: str) -> None:
    present = example.features.feature
    if column not in present:
        raise DataError(
            f"items, item {_show(item_id)}: there is no column '{column}' among "
            f"{', '.join(map(repr, sorted(present)))}. Name it in {setting} of the item table."
        )


def _checked_embedding(
    example: tf.train.Example, item_id: bytes, modality: PrecomputedModality
) -> np.ndarray | None:
    """Returns float32 [length], or None if the item has none."""
    assert modality.column is not None
    _check_column(example, item_id, modality.column, "embedding_columns")
    vector = np.asarray(example_features.get_floats(example, modality.column), np.float32)
    if not vector.size:
        return None
    if not np.isfinite(vector).all():
        raise DataError(
            f"items, item {_show(item_id)}, column '{modality.column}': the embedding is not "
            "finite. Expected finite numbers; leave the cell empty if there are none."
        )
    return vector
