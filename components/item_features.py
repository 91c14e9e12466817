"""Reading of the item features that `ContentEncoder` wrote."""

from collections.abc import Iterator, Sequence

import numpy as np
import tensorflow as tf

from bivrec_tf import data, features
from bivrec_tf.catalogue import ItemFeatures


def read_item_features(files: Sequence[str]) -> Iterator[ItemFeatures]:
    """Reads item features.

    Args:
        files: TFRecord files.

    Yields:
        One item at a time, with the modalities that it has.
    """
    for serialized in data.read_examples(files).as_numpy_iterator():
        fields = tf.train.Example.FromString(serialized).features.feature
        names = [name for name in fields if features.presence_name(name) in fields]
        yield ItemFeatures(
            fields[features.ITEM_ID].bytes_list.value[0].decode(),
            {
                name: np.asarray(fields[name].float_list.value, np.float32)
                for name in names
                if fields[features.presence_name(name)].int64_list.value[0]
            },
        )
