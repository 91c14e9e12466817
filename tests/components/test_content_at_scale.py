"""A catalogue larger than a step: what a killed run loses, what batches hold, what memory holds."""

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from components.content_encoder.content_config import ContentConfig

ROOT = Path(__file__).parents[2]
RUN = textwrap.dedent(
    """
    import json, resource, sys
    import apache_beam as beam
    from components.content_encoder.content_config import ContentConfig
    from components.content_encoder.encode_items import encode_items
    from pipeline.config import PipelineConfig

    root, columns, encoder = sys.argv[1:]
    modality = {"name": "text", "kind": "text", "columns": [columns], "encoder": encoder}
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    encoded = encode_items(
        items=[f"{root}/table.gz"],
        output_directory=f"{root}/out",
        cache_directory=f"{root}/cache",
        work_directory=f"{root}/work",
        config=ContentConfig(modalities=[modality]),
        make_pipeline=lambda: beam.Pipeline(
            argv=list(PipelineConfig.model_fields["beam_pipeline_args"].default)
        ),
    )
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(json.dumps({"counts": encoded.counts, "kib": peak - before}))
    """
)


def run_process(root, encoder, **environment):
    """Encodes `table.gz` of a folder in a process of its own."""
    code = root.parent / "user_code"
    environment |= {"PYTHONPATH": f"{ROOT}:{code}", "TF_CPP_MIN_LOG_LEVEL": "3"}
    return subprocess.run(
        [sys.executable, "-c", RUN, str(root), "title", encoder],
        capture_output=True,
        text=True,
        env=os.environ | environment,
        timeout=500,
    )


def told_by(finished):
    assert finished.returncode == 0, finished.stderr[-3000:]
    return json.loads(finished.stdout.splitlines()[-1])


@pytest.mark.slow
def test_a_killed_run_goes_on_where_it_was(user_code, write_item_rows, tmp_path):
    root = tmp_path / "catalogue"
    root.mkdir()
    # Buckets of about 600 texts: the run dies between two steps of a bucket.
    texts = [f"title {n}" for n in range(40_000)]
    write_item_rows(
        root / "table.gz",
        [{"item_id": [b"%d" % n], "title": [text.encode()]} for n, text in enumerate(texts)],
    )
    encoder = "user_encoders:RecordingEncoder"
    encoded = root / "encoded.txt"
    killed = run_process(root, encoder, ENCODED=str(encoded), KILL_AT_STEP="4")
    assert killed.returncode == -9
    before = encoded.read_text().splitlines()
    assert 1024 < len(before) < 2048, "three steps, of which one ended a bucket"
    counts = told_by(run_process(root, encoder, ENCODED=str(encoded)))["counts"]
    after = encoded.read_text().splitlines()
    assert sorted(after) == sorted(f"{text}." for text in texts), "each exactly once"
    assert counts["text_encoded"] == len(texts) - len(before)
    assert counts["text_cache_hits"] == len(before)
    assert counts["text_present"] == len(texts)
    # Of the many small shards each bucket keeps what the killed run left, and one of its own.
    assert 64 <= len(list(root.rglob("*.npz"))) <= 64 + 2


@pytest.mark.slow
def test_batches_hold_texts_of_like_length(encode, cache, user_code, tmp_path, monkeypatch):
    recorded = tmp_path / "encoded.txt"
    monkeypatch.setenv("ENCODED", str(recorded))
    items = [
        {"item_id": [b"%d" % n], "title": [b"a" * (n * 7919 % 97 + 1) + b" %04d" % n]}
        for n in range(640)
    ]
    modality = {"name": "text", "kind": "text", "columns": ["title"]}
    modality["encoder"] = "user_encoders:RecordingEncoder"
    encode(items, ContentConfig(modalities=[modality]))
    first = recorded.read_text().splitlines()
    lengths = [len(text) for text in first]
    # Each bucket, of ten texts here, is in order of length: only between buckets it falls.
    falls = sum(one > next_one for one, next_one in zip(lengths, lengths[1:], strict=False))
    assert falls < 64
    recorded.unlink()
    for shard in cache.rglob("*.npz"):
        shard.unlink()
    encode(list(reversed(items)), ContentConfig(modalities=[modality]))
    assert sorted(recorded.read_text().splitlines()) == sorted(first)


@pytest.mark.slow
def test_memory_does_not_hold_the_vectors(user_code, write_item_rows, tmp_path):
    """20,000 vectors of 8 KiB are 160 MiB: held once in memory, they would break the bound."""
    (user_code / "wide_encoder.py").write_text(
        textwrap.dedent(
            """
            import numpy as np
            from user_encoders import LetterEncoder

            class WideEncoder(LetterEncoder):
                name = "wide"
                dimension = 2048

                def encode(self, batch):
                    return np.repeat([[len(text)] for text in batch], 2048, 1).astype("f4")
            """
        )
    )
    used = {}
    for count in (1_000, 21_000):
        root = tmp_path / f"catalogue-{count}"
        root.mkdir()
        write_item_rows(
            root / "table.gz",
            [
                {"item_id": [b"item-%d" % n], "title": [b"A title of forty characters: %9d" % n]}
                for n in range(count)
            ],
        )
        told = told_by(run_process(root, "wide_encoder:WideEncoder"))
        assert told["counts"]["text_encoded"] == count
        used[count] = told["kib"]
    # Buffers of a fixed size fill up in between; they are counted in.
    per_item = (used[21_000] - used[1_000]) / 20_000
    assert per_item < 8, used
