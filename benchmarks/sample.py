"""The sample's pipeline under several seeds, against the popularity baseline of the same split.

    .venv/bin/python benchmarks/sample.py --seeds 0 --seeds 1 --seeds 2 --output output/seeds

The data is a development set: the table shows that the pipeline learns, and is no benchmark.
"""

import json
import statistics
from pathlib import Path

import click
from rich.console import Console

import bivrec_tf  # noqa: F401 - selects Keras 2
from bivrec_tf.features import POPULARITY_GAIN
from pipeline.config import PipelineConfig, load_config

METRICS = ("recall_at_20", "ndcg_at_20")


def with_seed(config: PipelineConfig, seed: int) -> PipelineConfig:
    """Returns the configuration with another seed of training."""
    training = config.training.model_copy(update={"seed": seed})
    return config.model_copy(update={"training": training})


@click.command()
@click.option("--config", "config_path", default="configs/ml-latest-small.yaml", show_default=True)
@click.option("--output", required=True, type=click.Path(path_type=Path))
@click.option("--seeds", multiple=True, type=int, default=(0, 1, 2), show_default=True)
def main(config_path: str, output: Path, seeds: tuple[int, ...]) -> None:
    """Run the pipeline once for every seed and print test metrics."""
    from pipeline.local_runner import run_locally

    console = Console(highlight=False, markup=False)
    config = load_config(config_path)
    rows = []
    for seed in seeds:
        console.print(f"Seed {seed}")
        overall = run_locally(with_seed(config, seed), output, console).metrics[()]
        row: dict[str, float] = {"seed": seed}
        for name in METRICS:
            row[name] = overall[name]
            row[f"popularity_{name}"] = overall[name] - overall[f"{name}_{POPULARITY_GAIN}"]
        rows.append(row)
        console.print(row)
    (output / "seeds.json").write_text(json.dumps(rows, indent=2))
    for name in METRICS:
        values = [row[name] for row in rows]
        spread = statistics.stdev(values) if len(values) > 1 else 0.0
        console.print(
            f"{name}: {statistics.mean(values):.4f} (standard deviation {spread:.4f}, "
            f"{len(values)} seeds); popularity {rows[0][f'popularity_{name}']:.4f}"
        )


if __name__ == "__main__":
    main()
