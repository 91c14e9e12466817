"""Tells whether two SavedModels are the same one."""

import hashlib
import os

import tensorflow as tf


def fingerprint(model_directory: str) -> str:
    """Returns a digest of all files of a SavedModel, by their relative paths."""
    digest = hashlib.sha256()
    for folder, _, files in sorted(tf.io.gfile.walk(model_directory)):
        for name in sorted(files):
            path = os.path.join(folder, name)
            digest.update(os.path.relpath(path, model_directory).encode())
            with tf.io.gfile.GFile(path, "rb") as file:
                while block := file.read(1 << 20):
                    digest.update(block)
    return digest.hexdigest()
