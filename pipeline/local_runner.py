"""Runs the pipeline on this machine, shows progress, and reads back what came of it."""

import datetime
import hashlib
import importlib.metadata
import logging
import os
import re
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from tfx.orchestration import metadata
from tfx.orchestration.local.local_dag_runner import LocalDagRunner

from bivrec_tf.errors import ConfigError
from bivrec_tf.training import logger as training_logger
from components.beam_support import user_errors
from pipeline.config import PipelineConfig, dump_config
from pipeline.dag import PipelinePaths, create_components, create_pipeline
from pipeline.results import RunResult, read_result


@dataclass(frozen=True)
class Output:
    """The folder that a user names with `--output`, and what is where in it.

    Attributes:
      directory: An absolute path.
    """

    directory: Path

    def paths(self, config: PipelineConfig) -> PipelinePaths:
        """Returns the pipeline's paths."""
        push = config.serving.push_directory or str(self.serving(config.serving.model_name))
        return PipelinePaths(
            root=str(self.directory / "pipeline"),
            content_cache=str(self.directory / "content_cache"),
            tensorboard=str(self.tensorboard),
            checkpoints=str(self.directory / "checkpoints"),
            push=push,
        )

    def serving(self, model_name: str) -> Path:
        """Base path of the pushed model's versions."""
        return self.directory / "serving" / model_name

    @property
    def tensorboard(self) -> Path:
        """Training logs."""
        return self.directory / "tensorboard"

    @property
    def metadata(self) -> Path:
        """The ML Metadata store."""
        return self.directory / "metadata.sqlite"

    @property
    def configuration(self) -> Path:
        """Configuration of the latest run, with absolute paths."""
        return self.directory / "config.yaml"

    @property
    def code(self) -> Path:
        """Digest of the code that made the artifacts."""
        return self.directory / "code_fingerprint"

    @property
    def log(self) -> Path:
        """Everything that the components logged."""
        return self.directory / "run.log"


def code_fingerprint() -> str:
    """Returns a digest of the code and libraries that components run: the cache knows neither."""
    digest = hashlib.sha256()
    root = Path(__file__).resolve().parents[1]
    for package in ("bivrec_tf", "components", "pipeline", "serving"):
        for path in sorted((root / package).rglob("*.py")):
            digest.update(f"{path.relative_to(root)}\n".encode() + path.read_bytes())
    for library in ("tensorflow", "tensorflow-recommenders", "tfx", "apache-beam"):
        digest.update(f"{library} {importlib.metadata.version(library)}\n".encode())
    return digest.hexdigest()


class _ComponentProgress(logging.Handler):
    """Turns the runner's log lines into one line a component."""

    _LINE = re.compile(r"Component (\S+) is (running|finished)\.")

    def __init__(self, console: Console, total: int) -> None:
        super().__init__(logging.INFO)
        self._console = console
        self._total = total
        self._done = 0
        self._start = 0.0
        self._cached = False
        self.status = console.status("")

    def emit(self, record: logging.LogRecord) -> None:
        message = record.getMessage()
        if record.name == training_logger.name:
            self._console.print(f"         {message}")
        if "A cached execution" in message or "Skipping execution" in message:
            self._cached = True
        match = self._LINE.fullmatch(message)
        if match is None:
            return
        name, event = match.groups()
        if event == "running":
            self._start, self._cached = time.monotonic(), False
            self.status.update(f"{name} ...")
            return
        self._done += 1
        seconds = time.monotonic() - self._start
        what = "unchanged" if self._cached else f"{seconds:6.1f} s"
        self._console.print(f"  {self._done:>2}/{self._total}  {name:<24} {what:>10}")


@contextmanager
def _logged(output: Output, console: Console, total: int) -> Iterator[None]:
    """Sends logs to the output folder, and the progress they tell of to the console."""
    log_file = output.log.open("a", encoding="utf-8")
    file_handler = logging.StreamHandler(log_file)
    file_handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s %(message)s"))
    progress = _ComponentProgress(console, total)
    root = logging.getLogger()
    # These two print by themselves; their records reach the root logger all the same.
    loud = [logging.getLogger(name) for name in ("absl", "tensorflow")]
    before = [(logger, logger.handlers[:], logger.level) for logger in (root, *loud)]
    root.handlers = [file_handler, progress]
    for logger in loud:
        logger.handlers, logger.propagate = [], True
    for logger, _, _ in before:
        logger.setLevel(logging.INFO)
    # A library that the Transform executor loads raises absl's level, and the runner would go on
    # in silence: the level stays as it is until the run is over.
    absl_logger = loud[0]
    absl_logger.setLevel = lambda level: None  # type: ignore[method-assign]
    # Native code writes to the error stream itself, whatever Python's logging says.
    sys.stderr.flush()
    old_stderr = os.dup(2)
    os.dup2(log_file.fileno(), 2)
    try:
        with progress.status:
            yield
    finally:
        os.dup2(old_stderr, 2)
        os.close(old_stderr)
        del absl_logger.setLevel
        for logger, handlers, level in before:
            logger.handlers = handlers
            logger.setLevel(level)
        log_file.close()


def run_locally(config: PipelineConfig, directory: Path, console: Console) -> RunResult:
    """Runs the whole pipeline under `LocalDagRunner`.

    Components whose inputs and configuration did not change are not run again, as long as the
    code and the libraries did not change either.

    Args:
      config: The pipeline's configuration.
      directory: The output folder; created.
      console: Where progress is shown.

    Returns:
      What the run decided and measured.

    Raises:
      DataError: The user's data is not what was expected.
      ConfigError: The configuration cannot be run, or the folder holds another pipeline.
    """
    output = Output(directory.resolve())
    try:
        output.directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"--output {directory}: cannot be created: {error.strerror}") from error
    claim(output, config)
    output.configuration.write_text(dump_config(config))
    code = run_components(
        output,
        config,
        console,
        lambda requested_at: create_components(config, output.paths(config), requested_at),
    )
    output.code.write_text(code)
    return read_result(output.metadata)


def run_components(
    output: Output,
    config: PipelineConfig,
    console: Console,
    create: Callable[[str], list],
) -> str:
    """Runs TFX nodes under `LocalDagRunner`, with progress on a console.

    Args:
      output: Where everything goes.
      config: Names the pipeline and its Beam options.
      console: Where progress is shown.
      create: Returns the nodes, given what tells this run from others (see `IdempotentPusher`).

    Returns:
      Digest of the code that ran.

    Raises:
      DataError: The user's data is not what was expected.
      ConfigError: The configuration cannot be run.
    """
    code = code_fingerprint()
    is_same_code = output.code.exists() and output.code.read_text() == code
    if not is_same_code:
        # From here on the folder holds artifacts of both. Only a run of the whole pipeline, which
        # then takes nothing from the cache, makes them all anew and marks them.
        output.code.unlink(missing_ok=True)
    pipeline = create_pipeline(
        config,
        output.paths(config),
        create(datetime.datetime.now(datetime.UTC).isoformat()),
        enable_cache=is_same_code,
        metadata_connection_config=metadata.sqlite_metadata_connection_config(str(output.metadata)),
    )
    with _logged(output, console, len(pipeline.components)), user_errors():
        LocalDagRunner().run(pipeline)
    return code


def claim(output: Output, config: PipelineConfig) -> None:
    """One output folder holds one pipeline: artifacts of two would be taken for one another's."""
    marker = output.directory / "pipeline_name"
    if marker.exists() and marker.read_text() != config.name:
        raise ConfigError(
            f"{output.directory} holds the pipeline {marker.read_text()!r}, not {config.name!r}: "
            "choose another --output, or the name it had"
        )
    marker.write_text(config.name)
