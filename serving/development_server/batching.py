"""Requests that arrive together answered by one run of the model, as `BatchingParameters` asks.

The rules and texts are those of TensorFlow Serving's batching session. Among them: every input
needs a first dimension, the same for all inputs of a request, so that a signature with scalar
inputs (such as `recommend`) cannot be called; and requests of different lengths go together only
with `pad_variable_length_inputs`, which pads with a tensor's first element.
"""

import collections
import dataclasses
import os
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent import futures
from typing import Any

import grpc
import numpy as np

from bivrec_contract.errors import ConfigError
from serving.development_server.servable import Run
from serving.development_server.status import StatusError, invalid_argument


@dataclasses.dataclass(frozen=True)
class BatchingParameters:
    """How requests are put together; the defaults are TensorFlow Serving's.

    Attributes:
        max_batch_size: The most rows in a run, and in a request.
        timeout_seconds: How long the first request of a batch waits for others at most.
        max_enqueued_batches: How many batches may wait for a thread; more are refused.
        threads: How many batches run at the same time.
        allowed_sizes: The numbers of rows that the model is run with, ascending; a batch is filled
            up to the next one. Empty for any number.
        pad: Whether inputs of different lengths are padded to the longest.
    """

    max_batch_size: int = 1000
    timeout_seconds: float = 0.0
    max_enqueued_batches: int = 10
    threads: int = dataclasses.field(default_factory=lambda: os.cpu_count() or 1)
    allowed_sizes: tuple[int, ...] = ()
    pad: bool = False

    @classmethod
    def from_message(cls, message: Any, where: str) -> "BatchingParameters":
        """Returns the parameters of a `BatchingParameters` message.

        Args:
            message: The message.
            where: Flag and file, for the error.

        Raises:
            ConfigError: If a number is too small, or the allowed sizes do not fit.
        """
        given: dict[str, Any] = {}
        for name, key, least in (
            ("max_batch_size", "max_batch_size", 1),
            ("batch_timeout_micros", "timeout_seconds", 0),
            ("max_enqueued_batches", "max_enqueued_batches", 1),
            ("num_batch_threads", "threads", 1),
        ):
            if message.HasField(name):
                value = getattr(message, name).value
                if value < least:
                    raise ConfigError(f"{where}: {name} must be at least {least}, not {value}")
                given[key] = value
        if "timeout_seconds" in given:
            given["timeout_seconds"] /= 1e6
        parameters = cls(
            **given,
            allowed_sizes=tuple(message.allowed_batch_sizes),
            pad=message.pad_variable_length_inputs,
        )
        sizes = parameters.allowed_sizes
        if sizes and (list(sizes) != sorted(set(sizes)) or sizes[0] < 1):
            raise ConfigError(f"{where}: allowed_batch_sizes must increase, and are {list(sizes)}")
        if sizes and sizes[-1] != parameters.max_batch_size:
            raise ConfigError(
                f"{where}: the last of allowed_batch_sizes must be max_batch_size, "
                f"{parameters.max_batch_size}, not {sizes[-1]}"
            )
        return parameters


@dataclasses.dataclass(frozen=True)
class _Task:
    feeds: Mapping[str, np.ndarray]
    rows: int
    deadline: float
    answer: "futures.Future[list[np.ndarray]]"


_Key = tuple[Run, tuple[str, ...], tuple[str, ...]]
"""The version, and the names of what is fed and fetched: only such requests go together."""


class Batcher:
    """Puts requests together and runs them, on threads that all models share.

    Args:
        parameters: How.
    """

    def __init__(self, parameters: BatchingParameters):
        self._parameters = parameters
        self._changed = threading.Condition()
        self._queues: dict[_Key, collections.deque[_Task]] = {}
        self._stopping = False
        for number in range(parameters.threads):
            threading.Thread(target=self._work, name=f"batch-{number}", daemon=True).start()

    def wrap(self, run: Run) -> Run:
        """Returns what takes the place of a version's `run`."""

        def batched(feeds: Mapping[str, np.ndarray], fetches: Sequence[str]) -> list[np.ndarray]:
            return self._submit(run, feeds, fetches).result()

        return batched

    def stop(self) -> None:
        """Ends the threads, after the batches that wait."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()

    def _submit(
        self, run: Run, feeds: Mapping[str, np.ndarray], fetches: Sequence[str]
    ) -> "futures.Future[list[np.ndarray]]":
        rows = _rows(feeds)
        limit = self._parameters.max_batch_size
        if rows > limit:
            raise invalid_argument(
                f"Task size {rows} is larger than maximum input batch size {limit}"
            )
        key = (run, tuple(sorted(feeds)), tuple(fetches))
        deadline = time.monotonic() + self._parameters.timeout_seconds
        task = _Task(feeds, rows, deadline, futures.Future())
        with self._changed:
            queue = self._queues.setdefault(key, collections.deque())
            if sum(each.rows for each in queue) + rows > (
                limit * self._parameters.max_enqueued_batches
            ):
                raise StatusError(
                    grpc.StatusCode.UNAVAILABLE,
                    "The batch scheduling queue to which this task was submitted is full",
                )
            queue.append(task)
            self._changed.notify()
        return task.answer

    def _work(self) -> None:
        while True:
            taken = self._next()
            if taken is None:
                return
            (run, names, fetches), tasks = taken
            try:
                answers = self._run(run, names, fetches, tasks)
            except Exception as error:  # Goes to the requests, whose handlers tell it apart.
                for task in tasks:
                    task.answer.set_exception(error)
            else:
                for task, answer in zip(tasks, answers, strict=True):
                    task.answer.set_result(answer)

    def _next(self) -> tuple[_Key, list[_Task]] | None:
        """Waits for a batch that is full or has waited long enough; None at the end."""
        with self._changed:
            while True:
                now = time.monotonic()
                earliest = None
                for key, queue in self._queues.items():
                    due = queue[0].deadline
                    full = sum(task.rows for task in queue) >= self._parameters.max_batch_size
                    if full or due <= now or self._stopping:
                        return key, self._take(key, queue)
                    earliest = due if earliest is None else min(earliest, due)
                if self._stopping:
                    return None
                self._changed.wait(None if earliest is None else earliest - now)

    def _take(self, key: _Key, queue: "collections.deque[_Task]") -> list[_Task]:
        tasks = [queue.popleft()]
        rows = tasks[0].rows
        while queue and rows + queue[0].rows <= self._parameters.max_batch_size:
            rows += queue[0].rows
            tasks.append(queue.popleft())
        if queue:
            self._changed.notify()
        else:
            del self._queues[key]  # A version that is unloaded must not be held here.
        return tasks

    def _run(
        self,
        run: Run,
        names: Sequence[str],
        fetches: Sequence[str],
        tasks: Sequence[_Task],
    ) -> list[list[np.ndarray]]:
        rows = sum(task.rows for task in tasks)
        allowed = [size for size in self._parameters.allowed_sizes if size >= rows]
        filling = allowed[0] - rows if allowed else 0
        feeds = {}
        for name in names:
            parts = self._of_one_shape(name, [task.feeds[name] for task in tasks])
            if filling:
                parts = [*parts, np.repeat(parts[-1][:1], filling, axis=0)]
            feeds[name] = parts[0] if len(parts) == 1 else np.concatenate(parts)
        outputs = run(feeds, fetches)
        for output in outputs:
            if output.ndim == 0:
                raise StatusError(
                    grpc.StatusCode.FAILED_PRECONDITION, "Batched output tensor has 0 dimensions"
                )
            if len(output) != rows + filling:
                raise StatusError(
                    grpc.StatusCode.FAILED_PRECONDITION,
                    "Batched output tensor's 0th dimension does not equal the sum of the 0th "
                    "dimension sizes of the input tensors",
                )
        answers = []
        start = 0
        for task in tasks:
            answers.append([output[start : start + task.rows] for output in outputs])
            start += task.rows
        return answers

    def _of_one_shape(self, name: str, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        if len({array.shape[1:] for array in arrays}) == 1:
            return list(arrays)
        if not self._parameters.pad:
            raise StatusError(
                grpc.StatusCode.FAILED_PRECONDITION,
                f"Tensors with name '{name}' from different tasks have different shapes and "
                f"padding is turned off.Set pad_variable_length_inputs to true, or ensure that "
                f"all tensors with the same namehave equal dimensions starting with the first "
                f"dim.",
            )
        if len({array.ndim for array in arrays}) > 1:
            raise invalid_argument(
                f"Tensors with name '{name}' from different tasks have different ranks"
            )
        longest = np.max([array.shape[1:] for array in arrays], axis=0)
        return [_padded(array, longest) for array in arrays]


def _rows(feeds: Mapping[str, np.ndarray]) -> int:
    if any(array.ndim == 0 for array in feeds.values()):
        raise invalid_argument("Batching Run() input tensors must have at least one dimension")
    sizes = {len(array) for array in feeds.values()}
    if len(sizes) > 1:
        raise invalid_argument("Batching Run() input tensors must have equal 0th-dimension size")
    if not sizes:
        raise invalid_argument("Batching session Run() must have at least one input tensor")
    return sizes.pop()


def _padded(array: np.ndarray, shape: np.ndarray) -> np.ndarray:
    if array.shape[1:] == tuple(shape):
        return array
    nothing = b"" if array.dtype == object else array.dtype.type(0)
    value = array.flat[0] if array.size else nothing
    widths = [
        (0, 0),
        *((0, most - size) for size, most in zip(array.shape[1:], shape, strict=True)),
    ]
    return np.pad(array, widths, constant_values=value)
