"""How well items that training never saw are recommended, and what that costs the others.

    .venv/bin/python -m benchmarks.cold_start --data ../shared/data/ml-1m --output output/cold-start

A tenth of the items is held out: their interactions are removed from training, their content
stays in the catalogue. Of every user the last interaction is the test target and the one before
the validation target, whichever item it is of. Cold targets are those of held-out items. The whole
catalogue is ranked, seen items filtered. `docs/cold-start.md` tells what came out.
"""

import dataclasses
import json
from pathlib import Path

import click
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from rich.console import Console
from rich.table import Table

from benchmarks.prepared import text_vectors
from bivrec_tf import data
from bivrec_tf.catalogue import ItemCatalogue, ItemFeatures
from bivrec_tf.config import ModelConfig, TrainingConfig
from bivrec_tf.evaluation import RankingEvaluator
from bivrec_tf.metrics import NDCG, Recall
from bivrec_tf.models import BiVRec
from bivrec_tf.models.histories import compact
from bivrec_tf.retrieval import MultiInterestTopK
from bivrec_tf.training import fit

MAX_HISTORY = 50
BUDGETS = (0.0, 0.01, 0.02, 0.05, 0.1)
OFFSETS = (-3.0, -2.5, -2.0, -1.5, -1.0, -0.5, 0.0, 0.5, 1.0)
HIDDEN = -100.0


@dataclasses.dataclass(frozen=True)
class Split:
    """Sequences (user, history, targets) of every part, and the items."""

    training: list
    validation: list
    test: list
    catalogue: ItemCatalogue


def prepare(folder: Path, share: float, seed: int, cache: Path) -> Split:
    """Reads the tables, holds items out and splits."""
    interactions = pd.read_parquet(folder / "interactions.parquet")
    interactions = interactions.sort_values("timestamp", kind="stable")
    vectors = text_vectors(folder, cache)
    generator = np.random.default_rng(seed)
    known = sorted(interactions.item_id.unique())
    held_out = set(generator.choice(known, int(share * len(known)), replace=False).tolist())
    training, validation, test = [], [], []
    step = MAX_HISTORY // 2
    for user, events in interactions.groupby("user_id"):
        ids = events.item_id.tolist()
        if len(ids) < 3:
            continue
        seen = [item for item in ids[:-2] if item not in held_out]
        for start in range(0, len(seen), step):
            history, targets = seen[max(0, start - step) : start], seen[start : start + step]
            if len(history) + len(targets) > 1:
                training.append((user, history, targets))
        validation.append((user, ids[:-2], [ids[-2]]))
        test.append((user, ids[:-1], [ids[-1]]))
    counts = pd.Series([i for _, _, targets in training for i in targets]).value_counts()
    counts = counts.sort_index(kind="stable").sort_values(ascending=False, kind="stable")
    content = [
        ItemFeatures(item, {"text": vectors[item]} if item in vectors else {}) for item in known
    ]
    catalogue = ItemCatalogue.build(list(counts.index), counts.to_numpy(), content)
    return Split(training, validation, test, catalogue)


def warm_and_cold(ranks, batches, catalogue: ItemCatalogue) -> dict[str, dict[str, float]]:
    """Recall@20 and NDCG@20 by kind of target."""
    values = {kind: [Recall(20), NDCG(20)] for kind in ("warm", "cold")}
    for found, batch in zip(ranks, batches, strict=True):
        is_cold = batch["target"].numpy()[:, 0] > catalogue.num_trained
        for kind, chosen in (("warm", ~is_cold), ("cold", is_cold)):
            for metric in values[kind]:
                metric.update_state(np.asarray(found)[chosen])
    return {
        kind: {metric.name: float(metric.result()) for metric in metrics}
        for kind, metrics in values.items()
    }


def baseline_ranks(batches, catalogue: ItemCatalogue):
    """Ranks by the cosine to the mean of the history's embeddings."""
    vectors = catalogue.content["text"]
    unit = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)
    index = MultiInterestTopK().index({"mm": unit}, has_padding=True)
    for batch in batches:
        history = compact(batch["history"], MAX_HISTORY).numpy()
        query = vectors[history].sum(axis=1) / np.maximum((history > 0).sum(1, keepdims=True), 1)
        yield index.ranks({"mm": query[:, np.newaxis]}, batch["target"], batch["history"])


def draw(path: Path, frontier: list[dict], calibrated: list[dict], baseline: float) -> None:
    """Plots what cold targets gain over what warm ones lose."""
    figure, axis = plt.subplots(figsize=(6, 4))
    axis.plot(
        [100 * row["warm_loss"] for row in frontier],
        [row["cold"]["recall_at_20"] for row in frontier],
        label="offset of cold items",
    )
    for row in calibrated:
        place = 100 * row["warm_loss"], row["cold"]["recall_at_20"]
        axis.plot(*place, "o", color="tab:orange")
        axis.annotate(f"budget {row['budget']:.0%}", place, (4, -10), textcoords="offset points")
    axis.axhline(baseline, color="grey", linestyle="--", label="content similarity")
    axis.set(xlabel="Recall@20 lost on warm targets, %", ylabel="Recall@20 of cold targets")
    axis.legend()
    figure.tight_layout()
    figure.savefig(path, dpi=120)


@click.command()
@click.option("--data", "folder", required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--output", required=True, type=click.Path(path_type=Path))
@click.option("--share", default=0.1, show_default=True, help="Items held out of training.")
@click.option("--epochs", default=4, show_default=True)
@click.option("--seed", default=0, show_default=True, help="Of the held-out items and the model.")
def main(folder: Path, output: Path, share: float, epochs: int, seed: int) -> None:
    """Train without a tenth of the items, then rank them."""
    import tf_keras

    console = Console(highlight=False)
    name = folder.name
    split = prepare(folder, share, seed, output)
    catalogue, lookup = split.catalogue, data.ItemLookup(split.catalogue)
    tf_keras.utils.set_random_seed(seed)
    config = TrainingConfig(epochs=epochs, positions_per_sequence=16, learning_rate=2e-3, seed=seed)
    windows = data.windows_from_ids(data.serialize_sequences(split.training), lookup)
    batches = data.training_batches(windows, MAX_HISTORY, config.batch_size, seed)
    validation, test = (
        data.evaluation_batches(data.serialize_sequences(part), lookup, max_examples=limit)
        for part, limit in ((split.validation, 2000), (split.test, None))
    )
    model = BiVRec(ModelConfig(max_history=MAX_HISTORY), catalogue, config.loss, 16)
    fit(model, batches, validation, config, directory=output / f"{name}-{seed}", verbose=2)

    evaluator = RankingEvaluator(model)
    baseline = warm_and_cold(baseline_ranks(test, catalogue), test, catalogue)
    reference = warm_and_cold(evaluator.ranks(test, cold_offset=HIDDEN), test, catalogue)

    def measure(offset: float) -> dict:
        row = warm_and_cold(evaluator.ranks(test, cold_offset=offset), test, catalogue)
        kept = row["warm"]["recall_at_20"] / reference["warm"]["recall_at_20"]
        return {"offset": offset, "warm_loss": 1 - kept, **row}

    frontier = [measure(offset) for offset in OFFSETS]
    calibrated = []
    for budget in BUDGETS:
        evaluator.calibrate(validation, budget)
        calibrated.append({"budget": budget, **measure(float(model.cold_offset.numpy()))})
    table = Table(title=f"{name}: {catalogue.num_items - catalogue.num_trained} items held out")
    for column in ("", "offset", "warm Recall@20 lost", "cold Recall@20", "cold NDCG@20"):
        table.add_column(column, justify="right")

    def add(label, row, loss):
        cold = row["cold"]
        values = f"{cold['recall_at_20']:.4f}", f"{cold['ndcg_at_20']:.4f}"
        table.add_row(label, f"{row.get('offset', float('nan')):.2f}", f"{loss:.2%}", *values)

    lost = 1 - baseline["warm"]["recall_at_20"] / reference["warm"]["recall_at_20"]
    add("content similarity", baseline, lost)
    for row in calibrated:
        add(f"budget {row['budget']:.0%}", row, row["warm_loss"])
    for row in frontier:
        add("fixed", row, row["warm_loss"])
    console.print(table)
    targets = sum(int((b["target"].numpy() > catalogue.num_trained).sum()) for b in test)
    console.print(
        f"{targets} cold of {len(split.test)} test targets; warm without cold: {reference}"
    )
    result = {
        "data": name,
        "seed": seed,
        "epochs": epochs,
        "held_out": catalogue.num_items - catalogue.num_trained,
        "cold_targets": targets,
        "id_weight": float(model.id_weight.numpy()),
        "without_cold_items": reference,
        "content_similarity": baseline,
        "calibrated": calibrated,
        "frontier": frontier,
    }
    (output / f"{name}-{seed}.json").write_text(json.dumps(result, indent=2))
    draw(output / f"{name}-{seed}.png", frontier, calibrated, baseline["cold"]["recall_at_20"])


if __name__ == "__main__":
    main()
