"""How fast the built-in encoders are, against what the machine's matrix products allow.

    .venv/bin/python benchmarks/encoding.py

Texts and pictures are those of MovieLens 1M if it is there, else made up.
"""

import bivrec_tf  # noqa: F401, I001 - selects Keras 2, before TensorFlow is imported

# isort: split
import io
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np
import pandas as pd
import tensorflow as tf
from PIL import Image
from rich.console import Console
from rich.table import Table

from bivrec_tf.encoders import load_encoder
from bivrec_tf.encoders.minilm import MiniLMTextEncoder

VARIANTS = {
    "minilm": ("minilm", "minilm-bfloat16"),
    "efficientnet-lite0": ("efficientnet-lite0",),
}
PRODUCT_TYPES = {"minilm-bfloat16": tf.bfloat16}
# Multiply-adds of EfficientNet-Lite0 at 224 x 224 are 0.39 billion.
IMAGE_GFLOP = 0.78


def matrix_product_rate(data_type: tf.DType, size: int = 2048, repeats: int = 8) -> float:
    """Returns the GFLOP per second of the best of some large matrix products."""
    matrix = tf.cast(tf.random.normal([size, size]), data_type)
    return 2 * size**3 / best_seconds(tf.function(lambda: tf.matmul(matrix, matrix)), repeats) / 1e9


def best_seconds(function: Callable[[], Any], repeats: int) -> float:
    """Returns the shortest of some calls, after one that warms up."""
    function()
    seconds = []
    for _ in range(repeats):
        began = time.perf_counter()
        function()
        seconds.append(time.perf_counter() - began)
    return min(seconds)


def text_gflop(texts: Sequence[str]) -> float:
    """Returns the GFLOP of the products for a mean text, padding not counted."""
    _, lengths = MiniLMTextEncoder()._tokenize(tf.constant(list(texts)))
    lengths = lengths.numpy().astype(np.float64)
    layers, width, hidden = 6, 384, 1536
    products = 2 * (4 * width * width + 2 * width * hidden) * lengths
    return float((layers * (products + 4 * width * lengths**2)).mean() / 1e9)


def made_up_pictures(count: int) -> list[bytes]:
    """Returns JPEG files of smooth noise."""
    random = np.random.default_rng(0)
    files = []
    for _ in range(count):
        pixels = random.integers(0, 256, [10, 8, 3], np.uint8)
        file = io.BytesIO()
        Image.fromarray(pixels).resize((224, 320)).save(file, "JPEG")
        files.append(file.getvalue())
    return files


def load_contents(movies: Path, count: int) -> dict[str, tuple[str, list[Any]]]:
    """Returns for each row of the table which encoder it is for, and the contents."""
    random = np.random.default_rng(0)
    if movies.is_dir():
        items = pd.read_parquet(movies / "items.parquet").sample(frac=1, random_state=0)
        titles = items["title"].tolist()[:count]
        plots = [plot for plot in items["plot"] if isinstance(plot, str) and plot]
        pictures = [path.read_bytes() for path in sorted((movies / "images").iterdir())[:count]]
    else:
        words = ["the", "a", "river", "night", "of", "war", "love", "city", "man", "woman", "story"]
        titles = [" ".join(random.choice(words, random.integers(3, 12))) for _ in range(count)]
        plots = [" ".join(random.choice(words, random.integers(50, 200))) for _ in range(count)]
        pictures = made_up_pictures(count // 4)
    return {
        "titles": ("minilm", titles),
        "plots": ("minilm", plots[: count // 4]),
        "posters": ("efficientnet-lite0", pictures[: count // 4]),
    }


@click.command()
@click.option("--ml-1m", "movies", default="../shared/data/ml-1m", type=click.Path(path_type=Path))
@click.option("--count", default=1000, show_default=True, help="Titles; a quarter of the others.")
@click.option("--repeats", default=3, show_default=True, help="The best of so many is reported.")
@click.option("--bfloat16/--no-bfloat16", default=True, show_default=True)
def main(movies: Path, count: int, repeats: int, bfloat16: bool) -> None:
    """Measure and print one table."""
    console = Console(highlight=False, markup=False, width=100)
    table = Table("encoder", "contents", "items/s", "GFLOP", "GFLOP/s", "product rate", "cosine")
    for contents_name, (family, contents) in load_contents(movies, count).items():
        gflop = text_gflop(contents) if family == "minilm" else IMAGE_GFLOP
        reference = None
        for name in VARIANTS[family][: None if bfloat16 else 1]:
            encoder = load_encoder(name)
            # Beside the measurement, not before all: others may use the machine.
            rate = matrix_product_rate(PRODUCT_TYPES.get(name, tf.float32))
            vectors = encoder.encode(contents)
            vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
            reference = vectors if reference is None else reference
            cosine = float(np.sum(vectors * reference, axis=1).min())
            seconds = best_seconds(lambda e=encoder, c=contents: e.encode(c), repeats)
            achieved = gflop * len(contents) / seconds
            table.add_row(
                name,
                f"{len(contents)} {contents_name}",
                f"{len(contents) / seconds:.0f}",
                f"{gflop:.3f}",
                f"{achieved:.0f}",
                f"{rate:.0f} ({achieved / rate:.0%})",
                f"{cosine:.5f}",
            )
    console.print(table)
    console.print("product rate: of large matrix products in the same numbers; cosine: the least.")


if __name__ == "__main__":
    main()
