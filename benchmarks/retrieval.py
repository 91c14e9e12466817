"""Exact retrieval over a million items, beside faiss' exact index, in one run.

    .venv/bin/pip install --target output/faiss --no-deps faiss-cpu==1.15.1
    PYTHONPATH=output/faiss .venv/bin/python -m benchmarks.retrieval \
        --json benchmarks/results/retrieval.json

A user has several interests, and an item's score is the greatest that one of them gives it. faiss
searches the interests one by one, and their lists are merged without duplicates: that is all of
one view, and what is timed beside it (`faiss.IndexFlatIP`, all threads). Two views add up their
scores before the cut, which lists cannot: for them faiss' time is that of two such searches, and
its result would be no answer. Both take turns, so that other work on the machine meets both.

Then what smaller tables keep of the exact results (recall at k), what they cost, and the memory of
a model of so many items. Vectors are drawn at random around a thousand centres, and queries near
vectors of items, so that neighbours exist. `--model` exports an untrained model of so many items
and serves it: the size of its files, and the memory of the server after a request.
"""

import json
import os
import re
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import click
import numpy as np
import tensorflow as tf

from bivrec_tf.catalogue import ItemCatalogue, ItemFeatures
from bivrec_tf.config import ExportConfig, ModelConfig
from bivrec_tf.export import export
from bivrec_tf.models import BiVRec
from bivrec_tf.retrieval import MultiInterestTopK
from serving.client import RecommenderClient
from serving.process import ServerProcess

CENTRES = 1000
SPREAD = 0.6


def draw(generator: np.random.Generator, items: int, dimension: int) -> np.ndarray:
    """Draws item vectors of length about 1, float32 `[items, dimension]`."""
    centres = generator.standard_normal([CENTRES, dimension], dtype=np.float32)
    vectors = centres[generator.integers(0, CENTRES, items)]
    vectors += SPREAD * generator.standard_normal([items, dimension], dtype=np.float32)
    return vectors / dimension**0.5


def merged(scores: np.ndarray, rows: np.ndarray, interests: int, k: int) -> np.ndarray:
    """Merges the lists of each user's interests, `[n * K, k]`, to rows `[n, k]`."""
    found = []
    for start in range(0, len(rows), interests):
        order = np.argsort(-scores[start : start + interests].ravel(), kind="stable")
        by_score = rows[start : start + interests].ravel()[order]
        _, first = np.unique(by_score, return_index=True)
        found.append(by_score[np.sort(first)[:k]])
    return np.array(found)


def in_turns(calls: dict[str, Callable[[], object]], seconds: float) -> dict[str, float]:
    """Median milliseconds of each call; they take turns."""
    spent: dict[str, list[float]] = {name: [] for name in calls}
    for call in calls.values():
        call()
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(next(iter(spent.values()))) < 5:
        for name, call in calls.items():
            began = time.perf_counter()
            call()
            spent[name].append(1000 * (time.perf_counter() - began))
    return {name: float(np.median(values)) for name, values in spent.items()}


def searcher(index: MultiInterestTopK, k: int):
    """A graph that searches."""
    return tf.function(lambda queries: index.search(queries, k=k), reduce_retracing=True)


def recall(found: np.ndarray, exact: np.ndarray) -> float:
    """Share of the exact results that were found, rows `[n, k]` each."""
    pairs = zip(found, exact, strict=True)
    return float(np.mean([len(set(a) & set(b)) / len(b) for a, b in pairs]))


def served_model(items: int, dimension: int, interests: int, dtype: str) -> dict[str, int]:
    """Exports a model of so many items and serves it: bytes of its files and of the server."""
    ids = [f"item-{row:08d}" for row in range(items)]
    features = np.zeros([1], np.float32)
    catalogue = ItemCatalogue.build(
        ids, np.ones(items, np.int64), (ItemFeatures(item, {"text": features}) for item in ids)
    )
    model = BiVRec(ModelConfig(dimension=dimension, num_interests=interests), catalogue)
    model.build_variables()
    with tempfile.TemporaryDirectory() as base:
        export(model, Path(base) / "1", options=ExportConfig(table_dtype=dtype))
        files = sum(file.stat().st_size for file in Path(base).rglob("*") if file.is_file())
        with (
            ServerProcess(base, start_timeout=600) as server,
            RecommenderClient(server.target, timeout=60) as client,
        ):
            client.recommend(ids[:10], k=100)
            status = Path(f"/proc/{server.pid}/status").read_text()
            resident = int(re.search(r"VmRSS:\s+(\d+)", status)[1]) * 1024
    return {"files": files, "resident": resident}


@click.command(help=__doc__)
@click.option("--items", default=1_000_000, show_default=True)
@click.option("--dimension", default=64, show_default=True)
@click.option("--interests", default=4, show_default=True)
@click.option("--k", default=100, show_default=True)
@click.option("--users", multiple=True, type=int, default=(1, 16, 64), show_default=True)
@click.option("--seconds", default=5.0, show_default=True, help="For every pair of timings.")
@click.option("--model", "with_model", is_flag=True, help="Export and serve such a model, too.")
@click.option("--json", "out", type=click.Path(path_type=Path))
def main(items, dimension, interests, k, users, seconds, with_model, out) -> None:
    """Measures and prints."""
    try:
        import faiss
    except ImportError as error:
        raise click.ClickException(
            "faiss is not there, and no dependency of this project: install it as the head of "
            f"this file says ({error})"
        ) from error
    generator = np.random.default_rng(0)
    tables = {view: draw(generator, items, dimension) for view in ("id", "mm")}
    near = generator.integers(0, items, [max(users), interests])
    noise = 0.3 / dimension**0.5 * generator.standard_normal([2, *near.shape, dimension])
    queries = {
        view: (tables[view][near] + noise[place]).astype(np.float32)
        for place, view in enumerate(tables)
    }
    peers = {}
    for view, table in tables.items():
        peers[view] = faiss.IndexFlatIP(dimension)
        peers[view].add(table)

    def by_faiss(view, asked):
        return merged(*peers[view].search(asked.reshape(-1, dimension), k), interests, k)

    result = {
        "items": items,
        "dimension": dimension,
        "interests": interests,
        "k": k,
        "cores": os.cpu_count(),
        "faiss": faiss.__version__,
        "views": {},
        "tables": {},
    }
    click.echo("| users | views | ours | faiss | ours / faiss |\n|---|---|---|---|---|")
    one = MultiInterestTopK(k).index({"id": tables["id"]})
    both = MultiInterestTopK(k).index(tables)
    search_one, search_both = searcher(one, k), searcher(both, k)
    for count in users:
        asked = {view: query[:count] for view, query in queries.items()}
        on_device = {view: tf.constant(query) for view, query in asked.items()}
        calls = {
            "one": (
                lambda q=on_device: search_one({"id": q["id"]}).rows.numpy(),
                lambda q=asked: by_faiss("id", q["id"]),
            ),
            "both": (
                lambda q=on_device: search_both(q).rows.numpy(),
                lambda q=asked: [by_faiss(view, q[view]) for view in q],
            ),
        }
        agreement = recall(calls["one"][0](), calls["one"][1]())
        for name, (ours, theirs) in calls.items():
            spent = in_turns({"ours": ours, "faiss": theirs}, seconds)
            ratio = spent["ours"] / spent["faiss"]
            result["views"][f"{name}, {count}"] = {**spent, "ratio": ratio, "agreement": agreement}
            click.echo(
                f"| {count} | {name} | {spent['ours']:.1f} ms | {spent['faiss']:.1f} ms "
                f"| {ratio:.2f} |"
            )
    click.echo(f"\nsame results as faiss (one view): {agreement:.4f}\n")

    # All in one loop would need all tables in memory at once: each takes turns with float32.
    asked = {view: tf.constant(query) for view, query in queries.items()}
    exact = search_both(asked).rows.numpy()
    click.echo("| table | MiB, both views | recall | time / float32 |\n|---|---|---|---|")
    for dtype in ("float32", "float16", "int8"):
        index = MultiInterestTopK(k).index(tables, dtype=dtype)
        search = searcher(index, k)
        size = sum(
            variable.shape.num_elements() * variable.dtype.size
            for view in tables
            for variable in index.table(view).variables
        )
        kept = recall(search(asked).rows.numpy(), exact)
        first = {view: query[:1] for view, query in asked.items()}
        spent = in_turns(
            {
                "this": lambda s=search, q=first: s(q).rows.numpy(),
                "float32": lambda q=first: search_both(q).rows.numpy(),
            },
            seconds,
        )
        ratio = spent["this"] / spent["float32"]
        result["tables"][dtype] = {"bytes": size, "recall": kept, "time_ratio": ratio, **spent}
        click.echo(f"| {dtype} | {size / 2**20:.0f} | {kept:.4f} | {ratio:.2f} |")
    if with_model:
        click.echo("\n| model | files, MiB | server, MiB |\n|---|---|---|")
        for dtype in ("float32", "float16", "int8"):
            found = served_model(items, dimension, interests, dtype)
            result["tables"][dtype].update(found)
            click.echo(
                f"| {dtype} | {found['files'] / 2**20:.0f} | {found['resident'] / 2**20:.0f} |"
            )
    if out is not None:
        out.write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
