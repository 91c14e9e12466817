"""Second step of the ContentEncoder: contents become vectors, by the cache or by the encoder."""

import logging
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import apache_beam as beam
import numpy as np
from apache_beam.transforms.window import GlobalWindow
from apache_beam.utils.windowed_value import WindowedValue

from bivrec_tf.encoders import Encoder, load_encoder
from bivrec_tf.errors import DataError
from components.beam_support import increment
from components.content_encoder import pictures
from components.content_encoder.content_config import EncodedModality, TextModality
from components.content_encoder.process_local import once_in_process
from components.content_encoder.spill import Entry, Pointer, SpillWriter, read_range
from components.content_encoder.split_modalities import NAMESPACE, unreadable
from components.content_encoder.vector_cache import VectorCache, content_key

# A step is what is encoded at once, and what a killed run loses at most.
_TEXTS_IN_STEP = 512
_PICTURES_IN_STEP = 64
_BYTES_IN_STEP = 64 << 20
_SECONDS_BETWEEN_LOGS = 10.0


class Content(NamedTuple):
    """A content that some items share.

    Attributes:
        size: characters of a text, bytes of a picture.
        key: its key in the cache.
        reference: see `SplitModalities`.
        item_ids: the items.
    """

    size: int
    key: bytes
    reference: Any
    item_ids: list[bytes]

    @property
    def where(self) -> str:
        """For a message: the path of a picture."""
        return self.reference if isinstance(self.reference, str) else "bytes in the item table"


class Progress:
    """Tells in the log how far a worker process is, over all of its buckets.

    Args:
        name: of the modality.
    """

    def __init__(self, name: str):
        self._name = name
        self._lock = threading.Lock()
        self._encoded = 0
        self._cached = 0
        self._seconds = 0.0
        self._logged_at = time.monotonic()
        self._logged = (0, 0)

    def add(self, encoded: int = 0, cached: int = 0, seconds: float = 0.0) -> None:
        """Takes note of contents, and of the seconds that the encoder took."""
        with self._lock:
            self._encoded += encoded
            self._cached += cached
            self._seconds += seconds
            if time.monotonic() - self._logged_at >= _SECONDS_BETWEEN_LOGS:
                self._log()

    def finish(self) -> None:
        """Logs the total, once."""
        with self._lock:
            if self._logged != (self._encoded, self._cached):
                self._log()

    def _log(self) -> None:
        self._logged_at = time.monotonic()
        self._logged = (self._encoded, self._cached)
        logging.getLogger(__name__).info(
            "%s: this worker encoded %s contents, %.0f a second; %s came from the cache",
            self._name,
            f"{self._encoded:,}",
            self._encoded / max(self._seconds, 1e-9),
            f"{self._cached:,}",
        )


class EncodeBucket(beam.DoFn):
    """(bucket, its (key, item id, size, reference)) -> (partition, pointer to vectors by item).

    Further output `unreadable`: (modality, (item id, where, why)).

    Args:
        modality: what to encode.
        tag: of its entries.
        cache: of its encoder.
        work_directory: for vectors; must be seen by all workers.
        run: see `once_in_process`.
    """

    def __init__(
        self,
        modality: EncodedModality,
        tag: int,
        cache: VectorCache,
        work_directory: str,
        run: str,
    ):
        self._modality = modality
        self._tag = tag
        self._cache = cache
        self._work_directory = work_directory
        self._run = run

    def setup(self) -> None:
        """Takes the encoder and the tally that all threads of the process share."""
        path, name = self._modality.encoder, self._modality.name
        self._encoder: Encoder = once_in_process(
            self._run, f"encoder {path}", lambda: load_encoder(path)
        )
        self._progress = once_in_process(self._run, f"progress {name}", lambda: Progress(name))

    def start_bundle(self) -> None:
        """Begins a new file: that of a bundle that is repeated is never read."""
        self._spill = SpillWriter(self._work_directory)

    def process(self, element: tuple[int, Iterable[tuple[bytes, bytes, int, Any]]]) -> Iterator:
        """Encodes one bucket; see the class."""
        name = self._modality.name
        bucket, rows = element
        contents: dict[bytes, Content] = {}
        for key, item_id, size, reference in rows:
            content = contents.setdefault(key, Content(size, key, reference, []))
            content.item_ids.append(item_id)
        cached = self._cache.read(bucket, contents.keys())
        for key, vector in cached.items():
            increment(NAMESPACE, f"{name}_cache_hits", len(contents[key].item_ids))
            yield from self._give(contents[key], vector)
        self._progress.add(cached=len(cached))
        # Contents of like length share a batch: little padding. Then by key, so that batches do
        # not depend on the order of arrival.
        missing = sorted(
            (content for key, content in contents.items() if key not in cached),
            key=lambda content: (content.size, content.key),
        )
        written = []
        for step in self._steps(missing):
            vectors: dict[bytes, np.ndarray] = {}
            for content, result in self._encode(step):
                if isinstance(result, str):
                    for item_id in content.item_ids:
                        yield unreadable(name, item_id, content.where, result)
                    continue
                vectors[content.key] = result
                increment(NAMESPACE, f"{name}_shared", len(content.item_ids) - 1)
                yield from self._give(content, result)
            increment(NAMESPACE, f"{name}_encoded", len(vectors))
            if vectors:
                # At once: a run that is killed later does not encode them again.
                written.append(self._cache.write(bucket, vectors))
        self._cache.merge(bucket, written)

    def finish_bundle(self) -> Iterator[WindowedValue]:
        """Writes what is held."""
        for pointer in self._spill.flush():
            yield WindowedValue(pointer, GlobalWindow().max_timestamp(), [GlobalWindow()])

    def teardown(self) -> None:
        """Logs what the worker did."""
        self._progress.finish()

    def _give(self, content: Content, vector: np.ndarray) -> Iterator[tuple[int, Pointer]]:
        for item_id in content.item_ids:
            yield from self._spill.add(Entry(item_id, self._tag, vector.tobytes()))

    def _steps(self, contents: Sequence[Content]) -> Iterator[list[Content]]:
        is_text = isinstance(self._modality, TextModality)
        most = _TEXTS_IN_STEP if is_text else _PICTURES_IN_STEP
        step: list[Content] = []
        size = 0
        for content in contents:
            if step and (len(step) == most or size + content.size > _BYTES_IN_STEP):
                yield step
                step, size = [], 0
            step.append(content)
            size += content.size
        if step:
            yield step

    def _encode(self, step: Sequence[Content]) -> Iterator[tuple[Content, np.ndarray | str]]:
        """Yields each content with its float32 [dimension], or with the reason why it has none."""
        loaded: list[tuple[Content, Any]] = []
        for content in step:
            try:
                loaded.append((content, self._load(content)))
            except pictures.UnreadableError as error:
                yield content, str(error)
        if not loaded:
            return
        began = time.monotonic()
        batch = np.asarray(self._encoder.encode([raw for _, raw in loaded]))
        seconds = time.monotonic() - began
        expected = (len(loaded), self._encoder.dimension)
        is_text = isinstance(self._modality, TextModality)
        if batch.shape != expected or (is_text and not np.isfinite(batch).all()):
            raise DataError(
                f"encoder '{self._modality.encoder}' gave an array of shape {batch.shape}, "
                f"finite: {bool(np.isfinite(batch).all())}. Expected finite numbers of shape "
                f"{expected}."
            )
        finite = np.isfinite(batch).all(axis=1)
        self._progress.add(encoded=len(loaded), seconds=seconds)
        for (content, raw), vector, readable in zip(loaded, batch, finite, strict=True):
            if readable:
                yield content, vector.astype(np.float32)
            else:
                yield content, self._encoder.explain(raw)

    def _load(self, content: Content) -> str | bytes:
        """Returns what the encoder takes.

        Raises:
            UnreadableError: a picture cannot be read any more, or is another one.
        """
        if isinstance(self._modality, TextModality):
            return content.reference
        if not isinstance(content.reference, str):
            return read_range(content.reference)
        picture = pictures.read_picture(content.reference)
        # Its vector would be cached under the key of what it was.
        if content_key(self._encoder.fingerprint, picture) != content.key:
            raise pictures.UnreadableError("the file changed during the run; run again")
        return picture
