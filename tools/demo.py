"""Serves the pushed model and asks it, over gRPC, for recommendations for users of the sample."""

from pathlib import Path

import click
from rich.console import Console

import bivrec_tf  # noqa: F401 - selects Keras 2
from bivrec_tf.errors import BivrecError
from pipeline.quiet import quiet_imports

with quiet_imports():
    from pipeline.config import load_config
    from pipeline.local_runner import Output
    from pipeline.show import show_recommendations
    from pipeline.tables import first_users, read_histories, read_titles
    from serving.client import RecommenderClient
    from serving.process import ServerProcess


@click.command()
@click.option("--config", "config_path", required=True, type=click.Path(exists=True))
@click.option("--output", required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--user", "users", multiple=True, help="Default: the table's first three users.")
@click.option("--k", default=5, show_default=True)
def main(config_path: str, output: Path, users: tuple[str, ...], k: int) -> None:
    """Serve the model that `bivrec run` pushed to OUTPUT and recommend for some users."""
    console = Console(highlight=False, markup=False)
    try:
        config = load_config(config_path)
        titles = read_titles(config.items)
        users = users or tuple(first_users(config.interactions, 3))
        histories = read_histories(config.interactions, users)
        base = Output(output.resolve()).paths(config).push
        with (
            ServerProcess(base, config.serving.model_name) as server,
            RecommenderClient(server.target, config.serving.model_name, timeout=30.0) as client,
        ):
            console.print(f"Serving version {server.version} at {server.target} (gRPC)")
            for user in users:
                answer = client.recommend(histories[user], k=k)
                if len(answer.items) < k:
                    raise click.ClickException(
                        f"asked for {k} recommendations for user {user}, got {len(answer.items)}"
                    )
                show_recommendations(console, f"User {user}", histories[user], answer, titles)
        console.print("Server stopped.")
    except BivrecError as error:
        raise click.ClickException(str(error)) from error


if __name__ == "__main__":
    main()
