"""The `bivrec` command.

Nothing heavy is imported before a subcommand needs it: `bivrec --help` answers at once.
"""

import functools
import importlib.util
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

import click

from bivrec_tf import __version__
from bivrec_tf.errors import BivrecError
from components.model_refresher import MAX_RETIRED
from pipeline.cache_command import cache
from pipeline.quiet import quiet_imports

EXIT_USER_ERROR = 2
EXIT_NOT_PUSHED = 3


def _reports_user_errors(command: Callable) -> Callable:
    """Prints errors that the user can put right as a sentence, and exits with 2."""

    @functools.wraps(command)
    def wrapped(*args, **kwargs):
        try:
            return command(*args, **kwargs)
        except BivrecError as error:
            click.secho(f"Error: {error}", fg="red", err=True)
            sys.exit(EXIT_USER_ERROR)

    return wrapped


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__)
def main() -> None:
    """Multimodal sequential recommendation, from interactions to a served model.

    \b
    A first run, on the bundled sample:
      bivrec run --config configs/ml-latest-small.yaml --output output
      bivrec serve --model-dir output/serving/recommender --port 8500
      bivrec recommend --target localhost:8500 --history 1,260,1196 --k 5

    Exit codes: 0 done; 1 unexpected failure; 2 something you can put right, said in a sentence;
    3 the pipeline ran but the model was not good enough to be pushed.
    """  # noqa: D301 - click wants the character itself


@main.command()
@click.option(
    "--config", "config_path", required=True, type=click.Path(dir_okay=False), help="YAML file."
)
@click.option(
    "--output",
    required=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder for artifacts, logs and the pushed model. A second run there only does what "
    "changed.",
)
@click.option(
    "--warm-start",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Start from what this model of another catalogue makes of the items' content: a version "
    "folder, or a base path, whose newest version is meant.",
)
@_reports_user_errors
def run(config_path: str, output: Path, warm_start: Path | None) -> None:
    """Run the whole pipeline on this machine.

    Reads the tables, builds sequences, encodes content, trains, evaluates, serves the model once
    to check its answers, and pushes it to OUTPUT/serving/<model_name>/<version>.
    """
    from rich.console import Console

    from pipeline.config import load_config, with_warm_start

    console = Console(highlight=False, markup=False)
    config = load_config(config_path)
    if warm_start is not None:
        training = config.training.model_copy(update={"warm_start": str(warm_start)})
        training = with_warm_start(training, Path.cwd())
        config = config.model_copy(update={"training": training})
    console.print(f"Pipeline {config.name}; log: {output / 'run.log'}")

    with quiet_imports():
        from pipeline.local_runner import run_locally
        from pipeline.show import show_metrics

    result = run_locally(config, output, console)
    show_metrics(console, result.metrics, ("recall_at_20", "ndcg_at_20", "mrr_at_20"))
    for finding in result.drift:
        console.print(f"Content changed: {finding}", soft_wrap=True)
    for failure in result.failures:
        console.print(f"Gate not passed: {failure}", soft_wrap=True)
    for difference in result.serving_verdict.get("differences", ()):
        console.print(f"Served and offline answers differ: {difference}", soft_wrap=True)
    if result.pushed_to is None:
        console.print("The model was not pushed.")
        sys.exit(EXIT_NOT_PUSHED)
    console.print(f"Pushed to {result.pushed_to}", soft_wrap=True)


@main.command()
@click.option(
    "--output",
    required=True,
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="The folder of `bivrec run`.",
)
@click.option(
    "--items",
    required=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="The updated item table, whole: items that it does not list are retired.",
)
@click.option(
    "--config",
    "config_path",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="YAML file; that of the folder's latest run without it.",
)
@click.option(
    "--max-retired",
    default=MAX_RETIRED,
    show_default=True,
    type=click.FloatRange(0, 1),
    help="Share of the listed items that may be retired at once: half an export empties no shop.",
)
@_reports_user_errors
def refresh(output: Path, items: Path, config_path: Path | None, max_retired: float) -> None:
    """Push the served model with an updated item table, without training.

    New items are recommended from their content; items that are no longer listed are understood
    in histories and not recommended. Items whose content did not change score as before: that is
    checked, and a model for which it does not hold is not pushed.
    """
    from rich.console import Console

    console = Console(highlight=False, markup=False)
    with quiet_imports():
        from pipeline.refresh import refresh_locally
        from pipeline.show import show_refresh

    result = refresh_locally(output, items, console, config_path, max_retired)
    show_refresh(console, result)
    if result.pushed_to is None:
        console.print("The model was not pushed.")
        sys.exit(EXIT_NOT_PUSHED)
    console.print(f"Pushed to {result.pushed_to}", soft_wrap=True)


@main.command()
@click.option(
    "--model-dir",
    required=True,
    type=click.Path(exists=True, file_okay=False),
    help="Base path: the folder that holds the version folders.",
)
@click.option("--model-name", default="recommender", show_default=True)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", default=8500, show_default=True, help="0 for any free one.")
@click.option("--rest-port", type=int, help="For REST, 0 for any free one; no REST without it.")
def serve(model_dir: str, model_name: str, host: str, port: int, rest_port: int | None) -> None:
    """Serve the newest version of a model over gRPC, and REST if asked to, until interrupted.

    This is the development server; production is tensorflow/serving on the same folder
    (docs/serving.md).
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    command = [sys.executable, "-m", "serving.development_server"]
    command += ["--model_name", model_name, "--model_base_path", os.path.abspath(model_dir)]
    command += ["--host", host, "--port", str(port)]
    if rest_port is not None:
        command += ["--rest_api_port", str(rest_port) if rest_port else "any"]
    os.execv(sys.executable, command)


@main.command()
@click.option("--target", required=True, help="HOST:PORT of the model server.")
@click.option("--history", help="Item ids, oldest first, separated by commas.")
@click.option("--user", help="Take this user's history from the interactions of --config.")
@click.option("--config", "config_path", type=click.Path(dir_okay=False), help="YAML file.")
@click.option("--k", default=10, show_default=True, type=click.IntRange(min=1))
@click.option(
    "--diversity",
    type=click.FloatRange(0, 1),
    help="From 0, the best scores, to 1, as unlike one another as can be.",
)
@click.option("--unavailable", default="", help="Item ids not to recommend, separated by commas.")
@click.option("--model-name", default="recommender", show_default=True)
@click.option("--timeout", default=10.0, show_default=True, help="Seconds.")
@click.option(
    "--format", "style", default="table", show_default=True, type=click.Choice(["table", "json"])
)
@_reports_user_errors
def recommend(
    target: str,
    history: str | None,
    user: str | None,
    config_path: str | None,
    k: int,
    diversity: float | None,
    unavailable: str,
    model_name: str,
    timeout: float,
    style: str,
) -> None:
    """Ask a running server for recommendations.

    Name a --history, or a --user together with --config. With --config, titles are shown.
    """
    if (history is None) == (user is None):
        raise click.UsageError("give either --history or --user")
    if user is not None and config_path is None:
        raise click.UsageError("--user needs --config, which names the interactions")
    with quiet_imports():
        from serving.client import RecommenderClient

    items = _ids(history or "")
    titles = {}
    if config_path is not None:
        from pipeline.config import load_config

        with quiet_imports():
            from pipeline.tables import read_history, read_titles

        config = load_config(config_path)
        titles = read_titles(config.items)
        if user is not None:
            items = read_history(config.interactions, user)
    with RecommenderClient(target, model_name, timeout=timeout) as client:
        answer = client.recommend(items, k=k, diversity=diversity, unavailable=_ids(unavailable))
    if style == "json":
        click.echo(
            json.dumps(
                {
                    "history": items,
                    "model_version": answer.model_version,
                    "unknown_items": answer.unknown_items,
                    "items": [
                        {
                            "item_id": item.item_id,
                            "title": titles.get(item.item_id),
                            "score": item.score,
                            "interest": item.interest,
                            "because": list(item.because),
                        }
                        for item in answer.items
                    ],
                },
                indent=2,
            )
        )
        return
    from rich.console import Console

    from pipeline.show import show_recommendations

    heading = "Recommendations" if user is None else f"Recommendations for user {user}"
    show_recommendations(Console(highlight=False, markup=False), heading, items, answer, titles)


def _ids(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


@main.group()
def kubeflow() -> None:
    """Work with Kubeflow Pipelines."""


@kubeflow.command("compile")
@click.option(
    "--config", "config_path", required=True, type=click.Path(dir_okay=False), help="YAML file."
)
@click.option(
    "--output",
    required=True,
    type=click.Path(dir_okay=False, path_type=Path),
    help="JSON file for the pipeline spec.",
)
@_reports_user_errors
def compile_spec(config_path: str, output: Path) -> None:
    """Compile the pipeline to a Kubeflow Pipelines spec, without a cluster."""
    from pipeline.config import load_config

    config = load_config(config_path)
    with quiet_imports():
        compiler = _load_kubeflow("compiler")
    compiler.compile_pipeline(config, output)
    click.echo(f"Wrote {output}")


@main.command()
@click.option(
    "--output",
    required=True,
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="The folder of `bivrec run`.",
)
@click.option("--port", default=6006, show_default=True)
def tensorboard(output: Path, port: int) -> None:
    """Show the training curves and interest diagnostics of all runs in a folder."""
    logs = output / "tensorboard"
    if not logs.is_dir():
        click.secho(f"Error: {logs} does not exist: nothing was trained there yet", err=True)
        sys.exit(EXIT_USER_ERROR)
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(logs)]
    os.execv(sys.executable, [*command, "--host", "127.0.0.1", "--port", str(port)])


main.add_command(cache)


def _load_kubeflow(name: str):
    """Loads a module of the `kubeflow/` folder by its path.

    The folder has no `__init__.py`, so that it does not hide the `kubeflow` SDK where that is
    installed; by the same token the SDK would hide the folder from an import.
    """
    root = Path(__file__).resolve().parents[1]
    # In a checkout, and where the package is installed.
    candidates = [root / folder / f"{name}.py" for folder in ("kubeflow", "bivrec_kubeflow")]
    path = next(path for path in candidates if path.exists())
    spec = importlib.util.spec_from_file_location(f"bivrec_kubeflow_{name}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


if __name__ == "__main__":
    main()
