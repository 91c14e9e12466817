"""What encoding a large catalogue costs: items a second, and memory, for several sizes.

    .venv/bin/python benchmarks/content_scale.py --items 10000 --items 100000
    .venv/bin/python benchmarks/content_scale.py --encoder cheap --items 100000 --items 1000000

Every size runs in a process of its own, because a process never gives back its peak. The encoder
`cheap` hashes words: what is left is the pipeline's own cost. Texts are synthetic: 5 to 40 words.
"""

import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import click

import bivrec_tf  # noqa: F401 - selects Keras 2

WORDS = 20_000


def text(rng: random.Random) -> str:
    """Returns a text of 5 to 40 made-up words, frequent ones more often."""
    words = (int(WORDS * rng.random() ** 3) for _ in range(rng.randint(5, 40)))
    return " ".join(f"{'bdfgklmnprst'[n % 12]}{'aeiou'[n % 5]}w{n}" for n in words)


def write_items(path: Path, items: int) -> None:
    """Writes an item table as its reader leaves it."""
    import tensorflow as tf

    rng = random.Random(0)
    with tf.io.TFRecordWriter(str(path), "GZIP") as writer:
        for number in range(items):
            example = tf.train.Example()
            example.features.feature["item_id"].bytes_list.value.append(b"item-%d" % number)
            example.features.feature["text"].bytes_list.value.append(text(rng).encode())
            writer.write(example.SerializeToString())


def measure(items: int, encoder: str, runs: int) -> None:
    """Encodes a catalogue `runs` times with one cache, and prints a line of JSON for each run."""
    import apache_beam as beam

    from components.content_encoder.content_config import ContentConfig
    from components.content_encoder.encode_items import encode_items
    from pipeline.config import PipelineConfig

    arguments = list(PipelineConfig.model_fields["beam_pipeline_args"].default)
    modality = {"name": "content", "kind": "text", "columns": ["text"], "encoder": encoder}
    config = ContentConfig(modalities=[modality])
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_items(root / "items.gz", items)
        for run in range(runs):
            before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            began = time.perf_counter()
            encoded = encode_items(
                items=[str(root / "items.gz")],
                output_directory=str(root / f"out-{run}"),
                cache_directory=str(root / "cache"),
                work_directory=str(root / "work"),
                config=config,
                make_pipeline=lambda: beam.Pipeline(argv=arguments),
            )
            seconds = time.perf_counter() - began
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            told = {
                "items": items,
                "encoded": encoded.counts["content_encoded"],
                "seconds": round(seconds, 1),
                "items_per_second": round(items / seconds),
                "peak_mib": round(peak / 1024),
                "before_mib": round(before / 1024),
            }
            print(json.dumps(told), flush=True)


@click.command()
@click.option("--items", multiple=True, type=int, default=(10_000, 100_000), show_default=True)
@click.option(
    "--encoder", default="minilm", show_default=True, help="`minilm`, `cheap`, or an import path."
)
@click.option("--runs", default=2, show_default=True, help="The second finds all in the cache.")
@click.option("--one-process", is_flag=True, hidden=True)
def main(items: tuple[int, ...], encoder: str, runs: int, one_process: bool) -> None:
    """Print items a second and peak memory for several catalogue sizes."""
    path = "benchmarks.cheap_encoder:WordHashEncoder" if encoder == "cheap" else encoder
    if one_process:
        measure(items[0], path, runs)
        return
    for count in items:
        command = [sys.executable, "-m", "benchmarks.content_scale", "--one-process"]
        command += ["--items", str(count), "--encoder", path, "--runs", str(runs)]
        subprocess.run(command, check=True, cwd=Path(__file__).parents[1])


if __name__ == "__main__":
    main()
