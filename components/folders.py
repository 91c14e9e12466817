"""Copying folders between any two file systems that TensorFlow knows."""

import os

import tensorflow as tf


def copy_folder(source: str, target: str) -> None:
    """Copies a folder with all that is in it.

    Args:
        source: an existing folder.
        target: where to; created.
    """
    for folder, _, files in tf.io.gfile.walk(source):
        inner = folder[len(source) :].strip("/")
        to = os.path.join(target, inner) if inner else target
        tf.io.gfile.makedirs(to)
        for name in files:
            tf.io.gfile.copy(os.path.join(folder, name), os.path.join(to, name))
