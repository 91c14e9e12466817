"""What a check expects, and what it found."""

import dataclasses
from collections.abc import Callable

import grpc

PASSED, FAILED, SKIPPED = "pass", "FAIL", "skip"

_SHOWN_CHARACTERS = 160


@dataclasses.dataclass(frozen=True)
class Outcome:
    """The result of a check: `pass`, `FAIL` or `skip`, what was expected, what was there."""

    name: str
    result: str
    expected: str
    found: str


@dataclasses.dataclass(frozen=True)
class Expected:
    """A refusal: its status (gRPC's name or HTTP's number) and its text, or how that begins."""

    status: str | int
    text: str = ""
    whole: bool = True

    def outcome(self, name: str, status: str | int, text: str) -> Outcome:
        """Returns the outcome of a check that found an answer of this status and text."""
        texts_agree = text == self.text if self.whole else text.startswith(self.text)
        passed = status == self.status and texts_agree
        expected = f"{self.status} {self.text}" + ("" if self.whole else "...")
        result = PASSED if passed else FAILED
        return Outcome(name, result, expected.strip(), shortened(f"{status} {text}"))


def holds(name: str, expected: str, check: Callable[[], str]) -> Outcome:
    """Returns the outcome of a check that tells what it found, or raises.

    Args:
        name: The check's name.
        expected: What it expects, in words.
        check: Returns what it found; raises AssertionError if that is wrong.
    """
    try:
        return Outcome(name, PASSED, expected, shortened(check()))
    except grpc.RpcError as error:
        return Outcome(name, FAILED, expected, shortened(f"{error.code().name} {error.details()}"))
    except (AssertionError, LookupError, TypeError, ValueError, OSError) as error:
        return Outcome(name, FAILED, expected, shortened(f"{type(error).__name__}: {error}"))


def shortened(text: str) -> str:
    """Returns the text on one line that a terminal takes."""
    line = " ".join(text.split())
    return line if len(line) <= _SHOWN_CHARACTERS else line[:_SHOWN_CHARACTERS] + "..."
