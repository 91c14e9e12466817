"""From sequence examples to the batches that training and evaluation take."""

from collections.abc import Iterable, Sequence

import tensorflow as tf

from bivrec_tf import features
from bivrec_tf.catalogue import ItemCatalogue
from bivrec_tf.models.sequential_recommender import IS_TARGET, SEQUENCE, USER

_SHUFFLE_BUFFER = 100_000
_SAMPLE_BUFFER = 20_000
# Windows are batched with others of at most so many items before the last target.
_LENGTHS = (5, 10, 20, 30, 50, 75, 100, 150, 200)


class ItemLookup(tf.Module):
    """Maps item ids to rows in the graph.

    Args:
      catalogue: The item order.
      first_row: Rows before this one are left out (they have another lookup).
    """

    def __init__(self, catalogue: ItemCatalogue, first_row: int = 1) -> None:
        super().__init__()
        ids = catalogue.item_ids[first_row:]
        # A table needs at least one key. No id is longer than 512 bytes, so none is this one.
        keys = list(ids) or ["-" * 513]
        rows = list(range(first_row, first_row + len(ids))) or [0]
        self._table = tf.lookup.StaticHashTable(
            tf.lookup.KeyValueTensorInitializer(tf.constant(keys), tf.constant(rows, tf.int64)),
            default_value=0,
        )

    def __call__(self, item_ids: tf.Tensor) -> tf.Tensor:
        """Returns int32 rows, shaped like the string ids; 0 for padding and unknown ids."""
        return tf.cast(self._table.lookup(item_ids), tf.int32)


def parse_sequences(serialized: tf.Tensor) -> dict[str, tf.Tensor]:
    """Parses sequence examples.

    Args:
      serialized: string `[n]`, serialised `tf.train.Example`.

    Returns:
      `user_id`, string `[n]`; `history` and `target`, ragged string `[n, ...]`.
    """
    return tf.io.parse_example(
        serialized,
        {
            features.USER_ID: tf.io.FixedLenFeature([], tf.string, default_value=""),
            features.HISTORY: tf.io.RaggedFeature(tf.string, row_splits_dtype=tf.int64),
            features.TARGET: tf.io.RaggedFeature(tf.string, row_splits_dtype=tf.int64),
        },
    )


def read_examples(files: Sequence[str]) -> tf.data.Dataset:
    """Reads serialised examples from TFRecord files, gzipped where the name ends so."""
    gzipped = all(name.endswith(".gz") for name in files)
    # Sorted, and read one after the other: the same files give the same order everywhere.
    return tf.data.TFRecordDataset(sorted(files), compression_type="GZIP" if gzipped else None)


def windows_from_ids(examples: tf.data.Dataset, lookup: ItemLookup) -> tf.data.Dataset:
    """Turns training examples with item ids into windows of rows.

    Args:
      examples: Serialised sequence examples of the training split.
      lookup: Ids to rows.

    Returns:
      Elements of `user`, int64 `[]`; `history` and `target`, int32 `[...]`.
    """

    def parse(serialized):
        parsed = parse_sequences(serialized[tf.newaxis])
        return {
            USER: tf.strings.to_hash_bucket_fast(parsed[features.USER_ID][0], 2**62),
            features.HISTORY: lookup(parsed[features.HISTORY].values),
            features.TARGET: lookup(parsed[features.TARGET].values),
        }

    return examples.map(parse, num_parallel_calls=tf.data.AUTOTUNE)


def windows_from_rows(examples: tf.data.Dataset) -> tf.data.Dataset:
    """Turns transformed training examples, with rows in place of ids, into windows.

    Args:
      examples: Serialised examples of `user` int64 [1], `history` and `target` int64.

    Returns:
      As for `windows_from_ids`.
    """

    def parse(serialized):
        parsed = tf.io.parse_single_example(
            serialized,
            {
                USER: tf.io.FixedLenFeature([], tf.int64),
                features.HISTORY: tf.io.RaggedFeature(tf.int64),
                features.TARGET: tf.io.RaggedFeature(tf.int64),
            },
        )
        parsed[features.HISTORY] = tf.cast(parsed[features.HISTORY], tf.int32)
        parsed[features.TARGET] = tf.cast(parsed[features.TARGET], tf.int32)
        return parsed

    return examples.map(parse, num_parallel_calls=tf.data.AUTOTUNE)


def training_batches(
    windows: tf.data.Dataset, max_history: int, batch_size: int, seed: int | None = None
) -> tf.data.Dataset:
    """Shuffles and batches windows for `BiVRec.fit`.

    Args:
      windows: As from `windows_from_ids`.
      max_history: Items of a window that precede its last target.
      batch_size: Windows of full length in a batch; of shorter ones there are more, so that a
        step has about the same number of items.
      seed: Of the shuffle, which differs in every epoch; no shuffle without it.

    Returns:
      Batches of `sequence`, `is_target` and `user`, see `bivrec_tf.models.bivrec`.
    """
    width = max_history + 1

    def lay_out(window):
        rows = tf.concat([window[features.HISTORY], window[features.TARGET]], axis=0)
        is_target = tf.range(tf.size(rows)) >= tf.size(window[features.HISTORY])
        rows, is_target = rows[-width:], is_target[-width:]
        front = [[width - tf.size(rows), 0]]
        return {
            SEQUENCE: tf.ensure_shape(tf.pad(rows, front), [width]),
            IS_TARGET: tf.ensure_shape(tf.pad(is_target, front), [width]),
            USER: window[USER],
        }

    batches = windows.map(lay_out, num_parallel_calls=tf.data.AUTOTUNE).cache()
    if seed is not None:
        batches = batches.shuffle(_SHUFFLE_BUFFER, seed=seed)
    # Windows of about one length stand together, and lose the padding that all of them have.
    longest = [bound for bound in _LENGTHS if bound < max_history] + [max_history]
    sizes = [batch_size * max_history // bound for bound in longest]

    def crop(batch):
        used = tf.cast(tf.reduce_any(batch[SEQUENCE] > 0, axis=0), tf.int32)
        start = tf.minimum(tf.argmax(used, output_type=tf.int32), width - 2)
        return {
            SEQUENCE: batch[SEQUENCE][:, start:],
            IS_TARGET: batch[IS_TARGET][:, start:],
            USER: batch[USER],
        }

    batches = batches.bucket_by_sequence_length(
        lambda window: tf.math.count_nonzero(window[SEQUENCE], dtype=tf.int32) - 1,
        bucket_boundaries=[bound + 1 for bound in longest[:-1]],
        bucket_batch_sizes=sizes,
    )
    return _not_tuned(batches.map(crop).prefetch(tf.data.AUTOTUNE))


def evaluation_batches(
    examples: tf.data.Dataset,
    lookup: ItemLookup,
    batch_size: int = 1024,
    max_examples: int | None = None,
) -> tf.data.Dataset:
    """Batches histories and targets for ranking.

    Args:
      examples: Serialised sequence examples of a held-out split.
      lookup: Ids to rows.
      batch_size: Examples a batch.
      max_examples: Take a fixed sample of so many only.

    Returns:
      Batches of `history`, int32 `[n, L]`, and `target`, int32 `[n, T]`; 0 is padding. Targets
      that the catalogue does not hold are -1: they count as never found.
    """
    if max_examples is not None:
        # Examples of a user stand together: the first so many would be of few users.
        examples = examples.shuffle(_SAMPLE_BUFFER, seed=0, reshuffle_each_iteration=False)
        examples = examples.take(max_examples)

    def parse(serialized):
        parsed = parse_sequences(serialized)
        history = lookup(parsed[features.HISTORY].to_tensor(""))
        target_ids = parsed[features.TARGET].to_tensor("")
        target = lookup(target_ids)
        return {
            features.HISTORY: history,
            features.TARGET: tf.where((target == 0) & (target_ids != ""), -1, target),
        }

    batches = examples.batch(batch_size).map(parse, num_parallel_calls=tf.data.AUTOTUNE)
    return _not_tuned(batches.cache().prefetch(tf.data.AUTOTUNE))


def _not_tuned(batches: tf.data.Dataset) -> tf.data.Dataset:
    """Returns batches whose parallelism is TensorFlow's default and stays it.

    What tunes it is a thread that sleeps for up to a minute, twice as long every time. The end of
    an iterator may wait until it wakes: so a run stood still after its epochs (decision 0022).
    """
    options = tf.data.Options()
    options.autotune.enabled = False
    return batches.with_options(options)


def count_targets(windows: tf.data.Dataset, num_items: int) -> tf.Tensor:
    """Counts how often every row is a target in training: int64 `[num_items + 1]`."""
    counts = tf.zeros([num_items + 1], tf.int64)
    for batch in windows.ragged_batch(1024):
        rows = batch[features.TARGET].values
        counts += tf.math.bincount(rows, minlength=num_items + 1, dtype=tf.int64)
    return counts


def serialize_sequences(
    sequences: Iterable[tuple[str, Sequence[str], Sequence[str]]],
) -> tf.data.Dataset:
    """Serialises sequences that are in memory, for notebooks and tests.

    Args:
      sequences: Triples of user id, history (oldest first) and targets.

    Returns:
      A dataset of serialised sequence examples.
    """

    def strings(values: Sequence[str]) -> tf.train.Feature:
        return tf.train.Feature(
            bytes_list=tf.train.BytesList(value=[value.encode() for value in values])
        )

    return tf.data.Dataset.from_tensor_slices(
        [
            tf.train.Example(
                features=tf.train.Features(
                    feature={
                        features.USER_ID: strings([user]),
                        features.HISTORY: strings(history),
                        features.TARGET: strings(target),
                    }
                )
            ).SerializeToString()
            for user, history, target in sequences
        ]
    )
