"""Beam core: item rows in, item features out."""

import json
import logging
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import apache_beam as beam
import numpy as np
import tensorflow as tf
from apache_beam.io.filesystems import FileSystems

from bivrec_tf import features
from bivrec_tf.encoders import Encoder, load_encoder
from bivrec_tf.errors import ConfigError, DataError
from components import example_features
from components.beam_support import increment, read_counts, user_errors
from components.content_encoder import cache_maintenance, process_local
from components.content_encoder.content_config import (
    ContentConfig,
    EncodedModality,
    ImageModality,
    PrecomputedModality,
    TextModality,
)
from components.content_encoder.encode_bucket import EncodeBucket
from components.content_encoder.feature_file import FeatureFile
from components.content_encoder.modalities_file import ModalityInfo
from components.content_encoder.spill import Pointer, read_entries
from components.content_encoder.split_modalities import (
    ITEM_TAG,
    LENGTHS,
    NAMESPACE,
    POINTERS,
    UNREADABLE,
    SplitModalities,
    contents_tag,
    open_files,
)
from components.content_encoder.vector_cache import VectorCache

# So many unreadable contents are told.
_EXAMPLES = 5


class EncodedItems(NamedTuple):
    """What came of a run.

    Attributes:
        counts: `items`, and for each modality `<name>_present` and `<name>_missing`. For texts and
            pictures also `<name>_encoded` (distinct contents that the model saw),
            `<name>_cache_hits` (items answered from the cache) and `<name>_shared` (items with the
            content of another one); for pictures `<name>_unreadable` (among the missing); for
            files with ids `<name>_unknown_ids` (not in the item table). `cache_removed` vectors
            were dropped to keep the cache below its limit.
        modalities: what `modalities.json` says.
    """

    counts: dict[str, int]
    modalities: dict[str, ModalityInfo]


def encode_items(
    items: Sequence[str],
    output_directory: str,
    cache_directory: str,
    work_directory: str,
    config: ContentConfig,
    make_pipeline: Callable[[], beam.Pipeline],
    table_rows: int | None = None,
) -> EncodedItems:
    """Writes gzipped TFRecords `items-*.gz` with the item features of `bivrec_tf.features`.

    Args:
        items: file patterns of gzipped TFRecords, as `ReadTable` writes them.
        output_directory: where to write.
        cache_directory: where vectors are kept between runs; must be seen by all workers.
        work_directory: for large values between steps; must be seen by all workers. Removed at the
            end.
        config: the configuration.
        make_pipeline: returns a new Beam pipeline.
        table_rows: rows of the item table, duplicates included; files without ids must have as
            many. None to check only that no item lies beyond the file.

    Raises:
        ConfigError: an encoder cannot be loaded, or takes another kind of content.
        DataError: a column is missing, a feature is not finite or of another length, a file is
            not what was expected, or too many pictures cannot be read.
    """
    # To the second, as some file systems keep times.
    began = float(int(time.time()))
    encoders = {modality.name: _load_encoder(modality) for modality in config.encoded}
    run = uuid.uuid4().hex
    try:
        files = open_files(config, run)
        for file in files.values():
            file.check_rows(table_rows)
        with user_errors():
            pipeline = make_pipeline()
            _ = (
                pipeline
                | "Patterns" >> beam.Create(list(items))
                | "ReadItems" >> beam.io.ReadAllFromTFRecord()
                | EncodeContent(config, encoders, files, cache_directory, work_directory, run)
                | "Write"
                >> beam.io.WriteToTFRecord(
                    FileSystems.join(output_directory, "items"), file_name_suffix=".gz"
                )
            )
            result = pipeline.run()
            result.wait_until_finish()
        counts = _no_counts(config) | read_counts(result, NAMESPACE)
        lengths = _read_json(work_directory, LENGTHS)
        examples = _read_json(work_directory, UNREADABLE)
    finally:
        process_local.release(run)
        if FileSystems.exists(work_directory):
            FileSystems.delete([work_directory])
    for name, file in files.items():
        if file.row_of is not None:
            counts[f"{name}_unknown_ids"] = len(file.row_of) - counts[f"{name}_present"]
    _check_unreadable(config, counts, dict(examples))
    limit = config.cache_gib * cache_maintenance.GIB
    counts["cache_removed"] = cache_maintenance.prune(cache_directory, limit, began).vectors
    dimensions = {name: encoder.dimension for name, encoder in encoders.items()}
    dimensions |= {name: file.dimension for name, file in files.items()}
    dimensions |= {name: length for (name, length), _ in lengths}
    modalities: dict[str, ModalityInfo] = {}
    for modality in config.modalities:
        encoder = encoders.get(modality.name)
        made_by = modality.made_by if isinstance(modality, PrecomputedModality) else None
        modalities[modality.name] = {
            "dimension": dimensions.get(modality.name),
            "kind": modality.kind,
            "encoder": encoder.name if encoder else made_by,
            "fingerprint": encoder.fingerprint if encoder else made_by,
        }
        if not counts[f"{modality.name}_present"]:
            logging.getLogger(__name__).warning(
                "No item has the modality '%s': its presence is 0 everywhere. Check the "
                "configuration, unless that is what the table says.",
                modality.name,
            )
    return EncodedItems(counts, modalities)


class EncodeContent(beam.PTransform):
    """Serialised item rows -> serialised item features.

    Args:
        config: the configuration.
        encoders: by modality.
        files: files of precomputed features, by modality.
        cache_directory: see `encode_items`.
        work_directory: see `encode_items`.
        run: see `once_in_process`.
    """

    def __init__(
        self,
        config: ContentConfig,
        encoders: Mapping[str, Encoder],
        files: Mapping[str, FeatureFile],
        cache_directory: str,
        work_directory: str,
        run: str,
    ):
        super().__init__()
        self._config = config
        self._encoders = encoders
        self._files = files
        self._cache_directory = cache_directory
        self._work_directory = work_directory
        self._run = run

    def expand(self, records: beam.PCollection[bytes]) -> beam.PCollection[bytes]:
        """Builds the steps; see the class."""
        fingerprints = {name: encoder.fingerprint for name, encoder in self._encoders.items()}
        split = SplitModalities(self._config, fingerprints, self._work_directory, self._run)
        contents = [contents_tag(name) for name in self._encoders]
        parts = records | "SplitModalities" >> beam.ParDo(split).with_outputs(
            LENGTHS, UNREADABLE, *contents, main=POINTERS
        )
        pointers, unreadable = [parts[POINTERS]], [parts[UNREADABLE]]
        for tag, modality in enumerate(self._config.modalities):
            if isinstance(modality, PrecomputedModality):
                continue
            name, encoder = modality.name, self._encoders[modality.name]
            cache = VectorCache(
                self._cache_directory, encoder.name, encoder.fingerprint, encoder.dimension
            )
            encode = EncodeBucket(modality, tag, cache, self._work_directory, self._run)
            encoded = (
                parts[contents_tag(name)]
                | f"ByBucket[{name}]" >> beam.GroupByKey()
                | f"Encode[{name}]" >> beam.ParDo(encode).with_outputs(UNREADABLE, main=POINTERS)
            )
            pointers.append(encoded[POINTERS])
            unreadable.append(encoded[UNREADABLE])
        lengths = (
            parts[LENGTHS]
            | "FirstOfLength" >> beam.CombinePerKey(min)
            | "Lengths" >> beam.combiners.ToList()
        )
        _ = lengths | "WriteLengths" >> beam.Map(_write_json, self._work_directory, LENGTHS)
        _ = (
            unreadable
            | "AllUnreadable" >> beam.Flatten()
            | "FirstUnreadable" >> beam.combiners.Top.SmallestPerKey(_EXAMPLES)
            | "Unreadable" >> beam.combiners.ToList()
            | "WriteUnreadable" >> beam.Map(_write_json, self._work_directory, UNREADABLE)
        )
        known = {name: encoder.dimension for name, encoder in self._encoders.items()}
        known |= {name: file.dimension for name, file in self._files.items()}
        return (
            pointers
            | "AllPointers" >> beam.Flatten()
            | "ByPartition" >> beam.GroupByKey()
            | "MakeFeatures"
            >> beam.ParDo(_MakeItemFeatures(self._config, known), beam.pvalue.AsSingleton(lengths))
        )


class _MakeItemFeatures(beam.DoFn):
    """(partition, its pointers) -> serialised features of its items, in order of their ids."""

    def __init__(self, config: ContentConfig, dimensions: Mapping[str, int]):
        self._config = config
        self._dimensions = dict(dimensions)

    def process(
        self,
        element: tuple[int, Iterable[Pointer]],
        lengths: Sequence[tuple[tuple[str, int], bytes]],
    ) -> Iterator[bytes]:
        dimensions = self._dimensions | {
            modality.name: _one_length(modality, lengths)
            for modality in self._config.modalities
            if isinstance(modality, PrecomputedModality) and modality.column is not None
        }
        values_of: dict[bytes, dict[int, bytes]] = {}
        for item_id, tag, value in read_entries(element[1]):
            values = values_of.setdefault(item_id, {})
            if tag != ITEM_TAG:
                values[tag] = value
        for item_id, values in sorted(values_of.items()):
            example = tf.train.Example()
            example_features.set_bytes(example, features.ITEM_ID, [item_id])
            for tag, modality in enumerate(self._config.modalities):
                name, present = modality.name, tag in values
                vector = (
                    np.frombuffer(values[tag], np.float32)
                    if present
                    else np.zeros(dimensions[name], np.float32)
                )
                example_features.set_floats(example, name, vector)
                example_features.set_integers(example, features.presence_name(name), [int(present)])
                increment(NAMESPACE, f"{name}_{'present' if present else 'missing'}")
            yield example_features.serialize(example)


def _one_length(
    modality: PrecomputedModality, lengths: Sequence[tuple[tuple[str, int], bytes]]
) -> int:
    """Returns the length of all embeddings of a column; 0 if there are none."""
    own = {length: item_id for (name, length), item_id in lengths if name == modality.name}
    if len(own) > 1:
        listed = ", ".join(
            f"{length} numbers for item {item_id.decode('utf-8', 'replace')!r}"
            for length, item_id in sorted(own.items())
        )
        raise DataError(
            f"items, column '{modality.column}': embeddings differ in length ({listed}). Expected "
            "one length in the whole column."
        )
    return next(iter(own), 0)


def _load_encoder(modality: EncodedModality) -> Encoder:
    encoder = load_encoder(modality.encoder)
    if encoder.content != modality.kind:
        raise ConfigError(
            f"modality '{modality.name}' is of kind {modality.kind}, but encoder "
            f"'{modality.encoder}' takes {encoder.content}s. Name another encoder."
        )
    return encoder


def _no_counts(config: ContentConfig) -> dict[str, int]:
    counts = {"items": 0}
    for modality in config.modalities:
        kinds = ["present", "missing"]
        if isinstance(modality, TextModality | ImageModality):
            kinds += ["encoded", "cache_hits", "shared"]
        if isinstance(modality, ImageModality):
            kinds += ["unreadable"]
        counts |= {f"{modality.name}_{kind}": 0 for kind in kinds}
    return counts


def _check_unreadable(
    config: ContentConfig, counts: Mapping[str, int], examples: Mapping[str, list[list[str]]]
) -> None:
    """Logs which contents could not be read, and raises if they are too many."""
    for modality in config.encoded:
        unreadable = counts.get(f"{modality.name}_unreadable", 0)
        if not isinstance(modality, ImageModality) or not unreadable:
            continue
        total = unreadable + counts[f"{modality.name}_present"]
        told = f"{unreadable:,} of {total:,} pictures of '{modality.name}' cannot be read"
        listed = "; ".join(
            f"item {item_id!r}, {where}: {reason}"
            for item_id, where, reason in examples.get(modality.name, [])
        )
        if unreadable / total > modality.max_unreadable:
            raise DataError(
                f"items, column '{modality.column}': {told}, more than max_unreadable "
                f"({modality.max_unreadable:g}) admits. The first are: {listed}. Repair the "
                "pictures, empty the cells, or raise max_unreadable."
            )
        logging.getLogger(__name__).warning(
            "%s and count as missing. The first are: %s", told, listed
        )


def _write_json(value: Any, directory: str, name: str) -> None:
    with FileSystems.create(FileSystems.join(directory, f"{name}.json")) as file:
        file.write(json.dumps(value, default=lambda data: data.decode("utf-8", "replace")).encode())


def _read_json(directory: str, name: str) -> Any:
    with FileSystems.open(FileSystems.join(directory, f"{name}.json")) as file:
        return json.loads(file.read())
