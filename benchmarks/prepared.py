"""A data set, split by the product's own rules and kept as rows: training starts in seconds.

What happens to a user (cleaning, splitting, windows) is `components.sequence_builder`, the code
that the pipeline runs in Beam; content is encoded by the pipeline's encoders, once a data set.
"""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import tensorflow as tf
from rich.progress import track

from bivrec_tf import features
from bivrec_tf.catalogue import ItemCatalogue, ItemFeatures
from bivrec_tf.encoders import load_encoder
from bivrec_tf.errors import ConfigError
from bivrec_tf.models.sequential_recommender import USER
from components.content_encoder.split_modalities import join_texts
from components.sequence_builder.sequence_config import SequenceConfig
from components.sequence_builder.statistics import quantile_rank
from components.sequence_builder.user_sequences import (
    clean_events,
    hashed_place,
    hashed_split,
    held_out_drafts,
    training_drafts,
    training_events,
)
from components.table_example_gen import cells

_TEXT_COLUMNS = ("title", "genres", "directors", "actors", "plot")
_ENCODERS = {"text": "minilm", "image": "efficientnet-lite0"}
_FORMAT = 1
_ENCODE_AT_ONCE = 256


@dataclass(frozen=True)
class Prepared:
    """Sequences as rows of a catalogue.

    Attributes:
      catalogue: The items, with content where the data set has any.
      windows: (user, history rows, target rows) of every training window.
      held_out: For `validation` and `test`, (user, history rows, target rows); targets that
        training never saw, and that have no content, are -1.
      fingerprint: Of the interactions and of how they were split.
      content_fingerprint: Of the items' texts and pictures and of their encoders; none where there
        is no content.
    """

    catalogue: ItemCatalogue
    windows: list[tuple[int, np.ndarray, np.ndarray]]
    held_out: dict[str, list[tuple[int, np.ndarray, np.ndarray]]]
    fingerprint: str
    content_fingerprint: str | None = None

    def training_windows(self) -> tf.data.Dataset:
        """Returns the windows as `data.windows_from_ids` does."""
        users = tf.constant([user for user, _, _ in self.windows], tf.int64)
        history, target = (
            tf.ragged.constant([window[part].tolist() for window in self.windows], dtype=tf.int32)
            for part in (1, 2)
        )
        elements = {USER: users, features.HISTORY: history, features.TARGET: target}
        return tf.data.Dataset.from_tensor_slices(elements)

    def batches(
        self, split: str, size: int = 1024, most: int | None = None, keep: bool = True
    ) -> tf.data.Dataset:
        """Returns held-out examples as `data.evaluation_batches` does.

        Args:
          split: `validation` or `test`.
          size: Examples of a batch.
          most: A fixed sample of so many examples; none for all.
          keep: Whether batches stay in memory once they were read.
        """
        examples = self.held_out[split]
        if most is not None and most < len(examples):
            chosen = np.random.default_rng(0).choice(len(examples), most, replace=False)
            examples = [examples[place] for place in sorted(chosen)]
        spec = {
            features.HISTORY: tf.TensorSpec([None, None], tf.int32),
            features.TARGET: tf.TensorSpec([None, None], tf.int32),
        }

        def generate():
            for begin in range(0, len(examples), size):
                part = examples[begin : begin + size]
                yield {
                    features.HISTORY: _padded([history for _, history, _ in part]),
                    features.TARGET: _padded([target for _, _, target in part]),
                }

        found = tf.data.Dataset.from_generator(generate, output_signature=spec)
        return found.cache() if keep else found


def sequence_config(
    protocol: Literal["temporal", "leave_one_out", "user"], max_history: int
) -> SequenceConfig:
    """Returns how all benchmarks make sequences under a protocol."""
    return SequenceConfig(
        protocol=protocol, max_history=max_history, window_overlap=1, max_seen=2048
    )


def prepare(
    folder: Path,
    config: SequenceConfig,
    cache: Path,
    content: bool = True,
    training_share: float = 1.0,
) -> Prepared:
    """Reads, splits and encodes a data set, or what is left of it from an earlier run.

    Args:
      folder: Holds `interactions.parquet` and `items.parquet`.
      config: Protocol, longest history, overlap of windows.
      cache: Where splits and vectors are kept.
      content: Whether to encode the items' texts and pictures.
      training_share: Share of the users, drawn by a hash of their id, whom training sees; of the
        others there are only the held-out examples.

    Raises:
      ConfigError: There is no such data set.
    """
    table = folder / "interactions.parquet"
    if not table.exists():
        raise ConfigError(
            f"{table} does not exist. Benchmark data is not part of the repository; put the "
            "tables there (docs/benchmarks.md), or name another folder with --root."
        )
    digest = hashlib.sha256(table.read_bytes())
    own = [] if training_share == 1.0 else [training_share]
    digest.update(json.dumps([_FORMAT, config.model_dump(mode="json"), *own]).encode())
    fingerprint = digest.hexdigest()[:16]
    file = cache / f"{folder.name}-{config.protocol}-{fingerprint}.npz"
    arrays = _kept(file, lambda: _split(pd.read_parquet(table), config, training_share))
    encoded = _content(folder, cache) if content else {}
    vectors = {name: found.vectors for name, found in encoded.items()}
    trained = arrays["trained"].tolist()
    # Cold items count for something only where their content is known.
    others = sorted(set(arrays["others"].tolist()) & set.union(set(), *map(set, vectors.values())))
    items = [
        ItemFeatures(item, {name: found[item] for name, found in vectors.items() if item in found})
        for item in trained + others
    ]
    catalogue = ItemCatalogue.build(trained, arrays["counts"], items if vectors else ())
    place = {item: row for row, item in enumerate(catalogue.item_ids) if row}
    rows = np.array([-1, *(place.get(item, -1) for item in trained + arrays["others"].tolist())])

    def unpack(split: str):
        history, target = (
            np.split(rows[arrays[f"{split}_{part}"]], arrays[f"{split}_{part}_ends"][:-1])
            for part in ("history", "target")
        )
        # An item without a row means nothing in a history.
        return [
            (int(user), np.maximum(h, 0).astype(np.int32), t.astype(np.int32))
            for user, h, t in zip(arrays[f"{split}_user"], history, target, strict=True)
        ]

    held_out = {split: unpack(split) for split in features.SPLITS[1:]}
    of_content = "-".join(found.fingerprint for found in encoded.values()) or None
    return Prepared(catalogue, unpack(features.TRAIN_SPLIT), held_out, fingerprint, of_content)


def encoders_of(catalogue: ItemCatalogue) -> dict[str, dict[str, str]]:
    """Returns the encoder and its fingerprint for every modality of a prepared catalogue."""
    return {
        name: {"encoder": _ENCODERS[name], "fingerprint": load_encoder(_ENCODERS[name]).fingerprint}
        for name in catalogue.modalities
    }


def _split(
    interactions: pd.DataFrame, config: SequenceConfig, training_share: float
) -> dict[str, np.ndarray]:
    table = interactions.assign(row=np.arange(len(interactions)))
    table["item_id"] = table.item_id.astype(str)
    table["user_id"] = table.user_id.astype(str)
    own_split = features.SPLIT in table
    users = {}
    for user, events in table.groupby("user_id", sort=True):
        found = zip(events.timestamp, events.row, (i.encode() for i in events.item_id), strict=True)
        named = cells.split_name(events[features.SPLIT].iloc[0]).decode() if own_split else ""
        part = named or hashed_split(user.encode(), config)
        users[user] = (part, clean_events(found).events)
    users = _k_core(users, config)
    cuts = None
    if config.protocol == "temporal":
        times = np.sort([event[0] for _, events in users.values() for event in events])
        quantiles = (config.validation_quantile, config.test_quantile)
        cuts = tuple(int(times[quantile_rank(q, len(times))]) for q in quantiles)
    drafts: dict[str, list] = {split: [] for split in features.SPLITS}
    counts: dict[bytes, int] = {}
    every: set[bytes] = set()
    for number, user in enumerate(track(users, "Splitting")):
        part, events = users[user]
        every.update(event[2] for event in events)
        seen = training_events(events, part, cuts, config)
        # One place for a user: every share holds the smaller ones.
        if hashed_place(b"training share:" + user.encode()) >= training_share:
            seen = []
        for event in seen:
            counts[event[2]] = counts.get(event[2], 0) + 1
        for draft in training_drafts(seen, config):
            if len(draft.history) + len(draft.target) > 1:
                drafts[draft.split].append((number, draft.history, draft.target))
        for draft in held_out_drafts(events, part, cuts, config):
            recent = draft.history[-config.max_seen :]
            drafts[draft.split].append((number, recent, draft.target))
    trained = sorted(counts, key=lambda item: (-counts[item], item))
    others = sorted(every - set(trained))
    place = {item: row for row, item in enumerate([*trained, *others], 1)}
    arrays: dict[str, np.ndarray] = {
        "trained": np.array([item.decode() for item in trained]),
        "others": np.array([item.decode() for item in others], dtype=str),
        "counts": np.array([counts[item] for item in trained]),
    }
    for split, examples in drafts.items():
        arrays[f"{split}_user"] = np.array([user for user, _, _ in examples], np.int64)
        for column, name in ((1, "history"), (2, "target")):
            parts = [[place[event[2]] for event in example[column]] for example in examples]
            arrays[f"{split}_{name}"] = np.array(_flat(parts), np.int32)
            arrays[f"{split}_{name}_ends"] = np.cumsum([len(part) for part in parts])
    return arrays


def _k_core(users, config: SequenceConfig):
    """Drops rare items and short users until there are none."""
    while True:
        counts: dict[bytes, int] = {}
        for _, events in users.values():
            for event in events:
                counts[event[2]] = counts.get(event[2], 0) + 1
        rare = {item for item, n in counts.items() if n < config.min_item_interactions}
        kept = {
            user: (part, [event for event in events if event[2] not in rare])
            for user, (part, events) in users.items()
        }
        least = config.min_user_interactions
        kept = {user: found for user, found in kept.items() if len(found[1]) >= least}
        if not rare and len(kept) == len(users):
            return kept
        users = kept


class _Encoded(NamedTuple):
    """Vectors of one modality by item id, and what they were made from."""

    fingerprint: str
    vectors: dict[str, np.ndarray]


def _content(folder: Path, cache: Path) -> dict[str, _Encoded]:
    """Vectors by modality."""
    items = _items(folder)
    found = {}
    if any(column in items for column in _TEXT_COLUMNS):
        found["text"] = _encoded_texts(folder, cache)
    if "image" in items:
        paths = {i: folder / p for i, p in zip(items.item_id, items.image, strict=True) if p}
        contents = {i: path.read_bytes() for i, path in paths.items() if path.is_file()}
        found["image"] = _encoded(contents, _ENCODERS["image"], folder, cache)
    return found


def text_vectors(folder: Path, cache: Path) -> dict[str, np.ndarray]:
    """Encodes all text columns of a data set's items, once.

    Args:
      folder: Holds `items.parquet`.
      cache: Where vectors are kept.

    Returns:
      float32 vectors by item id, of the items that have any text.
    """
    return _encoded_texts(folder, cache).vectors


def _encoded_texts(folder: Path, cache: Path) -> _Encoded:
    items = _items(folder)
    columns = [column for column in _TEXT_COLUMNS if column in items]
    rows = pa.Table.from_pandas(items[columns], preserve_index=False).to_pylist()
    texts = [join_texts([cells.texts(row[column]) for column in columns]) for row in rows]
    contents = {i: text for i, text in zip(items.item_id, texts, strict=True) if text}
    return _encoded(contents, _ENCODERS["text"], folder, cache)


def _items(folder: Path) -> pd.DataFrame:
    items = pd.read_parquet(folder / "items.parquet")
    return items.assign(item_id=items.item_id.astype(str))


def _encoded(contents: dict, name: str, folder: Path, cache: Path) -> _Encoded:
    encoder = load_encoder(name)
    digest = hashlib.sha256(encoder.fingerprint.encode())
    for item in sorted(contents):
        digest.update(repr((item, contents[item])).encode())
    fingerprint = digest.hexdigest()[:16]
    file = cache / f"{folder.name}-{name}-{fingerprint}.npz"

    def encode() -> dict[str, np.ndarray]:
        values = list(contents.values())
        begins = range(0, len(values), _ENCODE_AT_ONCE)
        vectors = [
            encoder.encode(values[begin : begin + _ENCODE_AT_ONCE])
            for begin in track(begins, f"Encoding with {name}")
        ]
        return {"ids": np.array(list(contents)), "vectors": np.concatenate(vectors)}

    stored = _kept(file, encode)
    ids, vectors = stored["ids"].tolist(), stored["vectors"]
    readable = {i: v for i, v in zip(ids, vectors, strict=True) if np.isfinite(v).all()}
    return _Encoded(fingerprint, readable)


def _kept(file: Path, make: Callable[[], dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Returns the arrays of a file; makes them first, whole or not at all, where there is none."""
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        scratch = file.with_suffix(".new.npz")
        np.savez_compressed(scratch, **make())
        scratch.replace(file)
    with np.load(file, allow_pickle=False) as stored:
        return dict(stored)


def _flat(parts: list[list[int]]) -> list[int]:
    return [row for part in parts for row in part]


def _padded(parts: list[np.ndarray]) -> np.ndarray:
    width = max([1, *(len(part) for part in parts)])
    out = np.zeros([len(parts), width], np.int32)
    for row, part in zip(out, parts, strict=True):
        row[: len(part)] = part
    return out
