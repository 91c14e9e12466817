"""The item order: which item stands in which row, everywhere."""

import functools
import hashlib
import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from bivrec_tf.errors import DataError


@dataclass(frozen=True)
class ItemFeatures:
    """Content features of one item.

    Attributes:
      item_id: The item.
      features: float32 `[dimension]` of every modality that is present.
    """

    item_id: str
    features: Mapping[str, np.ndarray]


@dataclass(frozen=True)
class ItemCatalogue:
    """All items, in the order of every table and index.

    Row 0 is padding; then the items of the training split, most frequent first; then the *cold*
    items, known only from the item table, sorted by id: they have content and no id row.

    Attributes:
      item_ids: `num_items + 1` ids, "" first.
      num_trained: Items with an id row: rows `1 .. num_trained`.
      counts: int64 `[num_items + 1]`, training interactions of every item.
      listed: bool `[num_items + 1]`, whether the item table holds the item.
      retired: bool `[num_items + 1]`, items that the table held once and holds no more: they are
        understood in histories and never recommended.
      modalities: Feature dimension of every modality.
      content: float32 `[num_items + 1, dimension]` of every modality; 0 where missing.
      presence: bool `[num_items + 1]` of every modality.
    """

    item_ids: tuple[str, ...]
    num_trained: int
    counts: np.ndarray
    listed: np.ndarray
    retired: np.ndarray
    modalities: Mapping[str, int] = field(default_factory=dict)
    content: Mapping[str, np.ndarray] = field(default_factory=dict)
    presence: Mapping[str, np.ndarray] = field(default_factory=dict)

    @property
    def num_items(self) -> int:
        """Number of items, without padding."""
        return len(self.item_ids) - 1

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the item order: equal exactly when rows mean the same items."""
        text = json.dumps([self.num_trained, *self.item_ids])
        return hashlib.sha256(text.encode()).hexdigest()

    @functools.cached_property
    def content_hashes(self) -> np.ndarray:
        """int64 `[num_items + 1]`: equal where content and what is missing are equal."""
        hashes = np.zeros([len(self.item_ids)], np.int64)
        names = sorted(self.modalities)
        for row in range(len(hashes)):
            digest = hashlib.blake2b(digest_size=8)
            for name in names:
                present = bool(self.presence[name][row])
                digest.update(b"+" if present else b"-")
                if present:
                    digest.update(self.content[name][row].tobytes())
            hashes[row] = int.from_bytes(digest.digest(), "little", signed=True)
        return hashes

    @property
    def has_content(self) -> np.ndarray:
        """Bool `[num_items + 1]`, whether anything is known of an item beside its id."""
        found = np.zeros([len(self.item_ids)], bool)
        for present in self.presence.values():
            found |= present
        return found

    @classmethod
    def build(
        cls,
        trained_ids: Sequence[str],
        counts: Sequence[int] | np.ndarray,
        items: Iterable[ItemFeatures] = (),
        modalities: Mapping[str, int] | None = None,
        retired_ids: Collection[str] = (),
    ) -> "ItemCatalogue":
        """Builds the catalogue.

        Args:
          trained_ids: Items of the training split in order of their rows, without padding.
          counts: Training interactions of each of them.
          items: Content of any items, also of such that training never saw.
          modalities: Feature dimensions, where they are known beforehand: a modality that no item
            has is then kept, missing everywhere.
          retired_ids: Items to keep that `items` holds no more.

        Returns:
          The catalogue; trained items that `items` lacks have all modalities missing.

        Raises:
          DataError: An id is empty or stands twice, counts are not as many as ids, a modality
            has two dimensions, or a feature is not a finite number.
        """
        if len(counts) != len(trained_ids):
            raise DataError(f"{len(trained_ids)} item ids with {len(counts)} counts")
        if "" in trained_ids or len(set(trained_ids)) != len(trained_ids):
            raise DataError("item ids of the vocabulary must be distinct and not empty")
        by_id: dict[str, ItemFeatures] = {}
        modalities = dict(modalities or {})
        for item in items:
            if not item.item_id or item.item_id in by_id:
                raise DataError(f"item features: id {item.item_id!r} is empty or stands twice")
            by_id[item.item_id] = item
            for name, vector in item.features.items():
                if modalities.setdefault(name, len(vector)) != len(vector):
                    raise DataError(
                        f"item {item.item_id!r}: modality {name!r} has {len(vector)} values, "
                        f"other items have {modalities[name]}"
                    )
                if not np.isfinite(vector).all():
                    raise DataError(
                        f"item {item.item_id!r}: modality {name!r} has values that are not finite "
                        "numbers; correct them, or leave the modality out"
                    )
        gone = set(retired_ids) - by_id.keys()
        cold = sorted((by_id.keys() | gone) - set(trained_ids))
        ids = ("", *trained_ids, *cold)
        content = {n: np.zeros([len(ids), d], np.float32) for n, d in modalities.items()}
        presence = {n: np.zeros([len(ids)], bool) for n in modalities}
        for row, item_id in enumerate(ids):
            for name, vector in by_id[item_id].features.items() if item_id in by_id else ():
                content[name][row] = vector
                presence[name][row] = True
        all_counts = np.zeros([len(ids)], np.int64)
        all_counts[1 : len(trained_ids) + 1] = counts
        listed = np.array([item_id in by_id for item_id in ids])
        retired = np.array([item_id in gone for item_id in ids])
        return cls(
            ids, len(trained_ids), all_counts, listed, retired, modalities, content, presence
        )

    def items(self) -> Iterator[ItemFeatures]:
        """Yields the content of every listed item."""
        for row in np.flatnonzero(self.listed):
            names = [name for name in self.modalities if self.presence[name][row]]
            yield ItemFeatures(self.item_ids[row], {n: self.content[n][row] for n in names})

    def rows(self, item_ids: Iterable[str]) -> list[int]:
        """Returns the rows of ids, 0 for unknown ones."""
        index = {item_id: row for row, item_id in enumerate(self.item_ids)}
        return [index.get(item_id, 0) for item_id in item_ids]
