"""What every Beam core here needs: exact reading of metrics, and errors that stay readable."""

import json
import logging
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import apache_beam as beam
from apache_beam.metrics import Metrics
from apache_beam.metrics.metric import MetricsFilter

from bivrec_tf.errors import BivrecError, ConfigError, DataError

_USER_ERROR = re.compile(
    r"bivrec_tf\.errors\.(DataError|ConfigError): (.*?)(?: \[while running |\n\n|\Z)", re.DOTALL
)
_ERROR_CLASSES: dict[str, type[BivrecError]] = {"DataError": DataError, "ConfigError": ConfigError}


def increment(namespace: str, name: str, by: int = 1) -> None:
    """Adds `by` to the counter `name`; to be called inside a Beam worker."""
    Metrics.counter(namespace, name).inc(by)


def read_counts(result: beam.runners.runner.PipelineResult, namespace: str) -> dict[str, int]:
    """Returns the counters of one namespace after a finished run.

    Committed values are preferred, because attempted ones also count bundles that were retried;
    runners that know no committed values give the attempted ones.
    """
    metrics = result.metrics().query(MetricsFilter().with_namespace(namespace))
    counts: dict[str, int] = {}
    for counter in metrics["counters"]:
        value = counter.committed if counter.committed is not None else counter.attempted
        # The same counter arrives once for every step that touched it.
        counts[counter.key.metric.name] = counts.get(counter.key.metric.name, 0) + int(value or 0)
    return dict(sorted(counts.items()))


def log_counts(component: str, counts: Mapping[str, int]) -> str:
    """Logs the counts, one to a line, and returns them as JSON for an artifact's property."""
    lines = "\n".join(f"  {name:<36} {value:>12,}" for name, value in sorted(counts.items()))
    logging.getLogger(__name__).info("%s counted:\n%s", component, lines)
    return json.dumps(dict(counts), sort_keys=True)


@contextmanager
def user_errors() -> Iterator[None]:
    """Turns a runner's wrapped exception back into the `DataError` or `ConfigError` inside it.

    Runners report a worker's exception as a RuntimeError that holds the traceback as text (with
    escaped line ends when it crossed a process). The user needs only the sentence in it.

    Raises:
        DataError: a worker raised one.
        ConfigError: a worker raised one.
    """
    try:
        yield
    except BivrecError as error:
        # Raised while the pipeline was built, or by a runner that keeps the type but appends.
        message = str(error).split(" [while running ")[0]
        raise type(error)(message) from None
    except RuntimeError as error:
        text = str(error)
        match = _USER_ERROR.search(text)
        if match is None:
            text = _unescape(text)
            match = _USER_ERROR.search(text)
        elif "\\n" in match.group(2) or "\\'" in match.group(2):
            match = _USER_ERROR.search(_unescape(text))
        if match is None:
            raise
        raise _ERROR_CLASSES[match.group(1)](match.group(2).strip()) from error


def _unescape(text: str) -> str:
    """Undoes `repr`: backslash escapes become the characters that they stand for."""
    return text.encode("latin-1", "backslashreplace").decode("unicode_escape", "replace")
