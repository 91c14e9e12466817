"""Beam core: item rows in, item features out."""

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import apache_beam as beam
import numpy as np
import tensorflow as tf
from apache_beam.io.filesystems import FileSystems
from apache_beam.utils.shared import Shared

from bivrec_tf import features
from bivrec_tf.encoders import Encoder, load_encoder
from bivrec_tf.errors import DataError
from components import example_features
from components.beam_support import increment, read_counts, user_errors
from components.content_encoder.content_config import (
    ContentConfig,
    PrecomputedModality,
    TextModality,
)
from components.content_encoder.vector_cache import VectorCache, bucket_of, content_key

NAMESPACE = "bivrec/content_encoder"
_LENGTHS = "lengths"
_VECTORS = "vectors"
# Progress is logged after so many texts.
_TEXTS_PER_STEP = 512


def encode_items(
    items: Sequence[str],
    output_directory: str,
    cache_directory: str,
    config: ContentConfig,
    make_pipeline: Callable[[], beam.Pipeline],
) -> dict[str, int]:
    """Writes gzipped TFRecords `items-*.gz` with the item features of `bivrec_tf.features`.

    Args:
        items: file patterns of gzipped TFRecords, as `ReadTable` writes them.
        output_directory: where to write.
        cache_directory: where vectors are kept between runs; must be seen by all workers.
        config: the configuration.
        make_pipeline: returns a new Beam pipeline.

    Returns:
        The counts: `items`, and for each modality `<name>_present` and `<name>_missing`, for
        text also `<name>_encoded` (distinct texts that the model saw), `<name>_cache_hits`
        (items answered from the cache) and `<name>_shared` (items with the text of another one).

    Raises:
        ConfigError: an encoder cannot be loaded.
        DataError: a column is missing, or an embedding is not finite or of another length.
    """
    with user_errors():
        pipeline = make_pipeline()
        records = (
            pipeline
            | "Patterns" >> beam.Create(list(items))
            | "ReadItems" >> beam.io.ReadAllFromTFRecord()
        )
        _ = (
            records
            | "EncodeContent" >> EncodeContent(config, cache_directory)
            | "Write"
            >> beam.io.WriteToTFRecord(
                FileSystems.join(output_directory, "items"), file_name_suffix=".gz"
            )
        )
        result = pipeline.run()
        result.wait_until_finish()
    counts = {"items": 0}
    for modality in config.modalities:
        kinds = ["present", "missing"]
        if isinstance(modality, TextModality):
            kinds += ["encoded", "cache_hits", "shared"]
        counts |= {f"{modality.name}_{kind}": 0 for kind in kinds}
    return counts | read_counts(result, NAMESPACE)


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


class EncodeContent(beam.PTransform):
    """Serialised item rows -> serialised item features."""

    def __init__(self, config: ContentConfig, cache_directory: str):
        super().__init__()
        self._config = config
        self._cache_directory = cache_directory

    def expand(self, records: beam.PCollection[bytes]) -> beam.PCollection[bytes]:
        """Builds the steps; see the class."""
        encoders = {
            modality.name: (modality, load_encoder(modality.encoder))
            for modality in self._config.modalities
            if isinstance(modality, TextModality)
        }
        fingerprints = {name: encoder.fingerprint for name, (_, encoder) in encoders.items()}
        parts = records | "SplitModalities" >> beam.ParDo(
            _SplitModalities(self._config, fingerprints)
        ).with_outputs(_LENGTHS, *(_texts_tag(name) for name in encoders), main=_VECTORS)
        vectors = [parts[_VECTORS]]
        for name, (modality, encoder) in encoders.items():
            cache = VectorCache(
                self._cache_directory, encoder.name, encoder.fingerprint, encoder.dimension
            )
            vectors.append(
                parts[_texts_tag(name)]
                | f"ByBucket[{name}]" >> beam.GroupByKey()
                | f"Encode[{name}]" >> beam.ParDo(_EncodeBucket(modality, cache))
            )
        lengths = (
            parts[_LENGTHS]
            | "FirstOfLength" >> beam.CombinePerKey(min)
            | "Lengths" >> beam.combiners.ToDict()
        )
        known = {name: encoder.dimension for name, (_, encoder) in encoders.items()}
        return (
            vectors
            | "AllVectors" >> beam.Flatten()
            | "ByItem" >> beam.GroupByKey()
            | "MakeFeatures"
            >> beam.ParDo(_MakeItemFeatures(self._config, known), beam.pvalue.AsSingleton(lengths))
        )


def _texts_tag(name: str) -> str:
    return f"texts_{name}"


class _SplitModalities(beam.DoFn):
    """Item row -> its parts.

    Main output: (item id, (modality, vector or None)) for embeddings and all that is missing;
    `texts_<modality>`: (bucket, (key, item id, text)); `lengths`: ((modality, length), item id).
    """

    def __init__(self, config: ContentConfig, fingerprints: Mapping[str, str]):
        self._config = config
        self._fingerprints = dict(fingerprints)

    def process(self, record: bytes) -> Iterator[Any]:
        example = tf.train.Example.FromString(record)
        item_id = example_features.get_bytes(example, features.ITEM_ID)[0]
        increment(NAMESPACE, "items")
        for modality in self._config.modalities:
            if isinstance(modality, TextModality):
                output = self._text(example, item_id, modality)
            else:
                vector = _checked_embedding(example, item_id, modality)
                if vector is not None:
                    length = (modality.name, len(vector))
                    yield beam.pvalue.TaggedOutput(_LENGTHS, (length, item_id))
                output = None if vector is None else (item_id, (modality.name, vector.tobytes()))
            present = output is not None
            increment(NAMESPACE, f"{modality.name}_{'present' if present else 'missing'}")
            yield output if present else (item_id, (modality.name, None))

    def _text(
        self, example: tf.train.Example, item_id: bytes, modality: TextModality
    ) -> beam.pvalue.TaggedOutput | None:
        for column in modality.columns:
            _check_column(example, item_id, column, "text_columns")
        text = join_texts([example_features.get_bytes(example, c) for c in modality.columns])
        if not text:
            return None
        key = content_key(self._fingerprints[modality.name], text)
        return beam.pvalue.TaggedOutput(
            _texts_tag(modality.name), (bucket_of(key), (key, item_id, text))
        )


def _check_column(example: tf.train.Example, item_id: bytes, column: str, setting: str) -> None:
    present = example.features.feature
    if column not in present:
        raise DataError(
            f"items, item {item_id.decode('utf-8', 'replace')!r}: there is no column '{column}' "
            f"among {', '.join(map(repr, sorted(present)))}. Name it in {setting} of the item "
            "table."
        )


def _checked_embedding(
    example: tf.train.Example, item_id: bytes, modality: PrecomputedModality
) -> np.ndarray | None:
    """Returns float32 [length], or None if the item has none."""
    _check_column(example, item_id, modality.column, "embedding_columns")
    vector = np.asarray(example_features.get_floats(example, modality.column), np.float32)
    if not vector.size:
        return None
    if not np.isfinite(vector).all():
        raise DataError(
            f"items, item {item_id.decode('utf-8', 'replace')!r}, column '{modality.column}': the "
            "embedding is not finite. Expected finite numbers; leave the cell empty if there are "
            "none."
        )
    return vector


class _EncodeBucket(beam.DoFn):
    """(bucket, its (key, item id, text)) -> (item id, (modality, vector))."""

    def __init__(self, modality: TextModality, cache: VectorCache):
        self._modality = modality
        self._cache = cache
        # One model for all threads and bundles of a process.
        self._shared = Shared()

    def setup(self) -> None:
        self._encoder: Encoder = self._shared.acquire(
            lambda: load_encoder(self._modality.encoder), tag=self._modality.encoder
        )

    def process(
        self, element: tuple[int, Iterable[tuple[bytes, bytes, str]]]
    ) -> Iterator[tuple[bytes, tuple[str, bytes]]]:
        name = self._modality.name
        bucket, contents = element
        text_of: dict[bytes, str] = {}
        items_of: dict[bytes, list[bytes]] = {}
        for key, item_id, text in contents:
            text_of[key] = text
            items_of.setdefault(key, []).append(item_id)
        cached = self._cache.read(bucket)
        # In order of key, so that batches do not depend on the order of arrival.
        missing = sorted(key for key in text_of if key not in cached)
        if missing:
            encoded = self._encode({key: text_of[key] for key in missing}, bucket)
            self._cache.write(bucket, encoded)
            cached |= encoded
        encoded_keys = set(missing)
        increment(NAMESPACE, f"{name}_encoded", len(missing))
        for key, item_ids in items_of.items():
            if key in encoded_keys:
                increment(NAMESPACE, f"{name}_shared", len(item_ids) - 1)
            else:
                increment(NAMESPACE, f"{name}_cache_hits", len(item_ids))
            for item_id in item_ids:
                yield item_id, (name, cached[key].tobytes())

    def _encode(self, texts: Mapping[bytes, str], bucket: int) -> dict[bytes, np.ndarray]:
        """Returns key -> float32 [dimension]."""
        keys = list(texts)
        vectors: dict[bytes, np.ndarray] = {}
        began = time.monotonic()
        for begin in range(0, len(keys), _TEXTS_PER_STEP):
            step = keys[begin : begin + _TEXTS_PER_STEP]
            batch = self._encoder.encode([texts[key] for key in step])
            if batch.shape != (len(step), self._encoder.dimension) or not np.isfinite(batch).all():
                raise DataError(
                    f"encoder '{self._modality.encoder}' gave an array of shape {batch.shape}, "
                    f"finite: {np.isfinite(batch).all()}. Expected finite numbers of shape "
                    f"{(len(step), self._encoder.dimension)}."
                )
            vectors.update(zip(step, batch.astype(np.float32, copy=False), strict=True))
            logging.getLogger(__name__).info(
                "%s, bucket %d: encoded %d of %d texts, %.0f texts/s",
                self._modality.name,
                bucket,
                len(vectors),
                len(keys),
                len(vectors) / max(time.monotonic() - began, 1e-9),
            )
        return vectors


class _MakeItemFeatures(beam.DoFn):
    """(item id, its (modality, vector or None)) -> serialised features."""

    def __init__(self, config: ContentConfig, dimensions: Mapping[str, int]):
        self._config = config
        self._dimensions = dict(dimensions)

    def process(
        self,
        element: tuple[bytes, Iterable[tuple[str, bytes | None]]],
        lengths: Mapping[tuple[str, int], bytes],
    ) -> Iterator[bytes]:
        item_id, parts = element
        vectors = dict(parts)
        example = tf.train.Example()
        example_features.set_bytes(example, features.ITEM_ID, [item_id])
        for modality in self._config.modalities:
            dimension = (
                _one_length(modality, lengths)
                if isinstance(modality, PrecomputedModality)
                else self._dimensions[modality.name]
            )
            data = vectors[modality.name]
            values = np.zeros(dimension) if data is None else np.frombuffer(data, np.float32)
            example_features.set_floats(example, modality.name, values)
            presence = features.presence_name(modality.name)
            example_features.set_integers(example, presence, [int(data is not None)])
        yield example_features.serialize(example)


def _one_length(modality: PrecomputedModality, lengths: Mapping[tuple[str, int], bytes]) -> int:
    """Returns the length of all embeddings of a modality."""
    own = {length: item_id for (name, length), item_id in lengths.items() if name == modality.name}
    if not own:
        raise DataError(
            f"items, column '{modality.column}': no item has an embedding. Expected at least one; "
            "remove the modality or bring the features."
        )
    if len(own) > 1:
        listed = ", ".join(
            f"{length} numbers for item {item_id.decode('utf-8', 'replace')!r}"
            for length, item_id in sorted(own.items())
        )
        raise DataError(
            f"items, column '{modality.column}': embeddings differ in length ({listed}). Expected "
            "one length in the whole column."
        )
    return next(iter(own))
