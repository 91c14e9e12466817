"""Checks that a model server answers as TensorFlow Serving does: `python -m serving.conformance`.

It knows nothing of this project's server: the same script runs against `tensorflow/serving`. What
it needs to know of the model it asks the server, so that it works with any exported recommender.
"""

import argparse
import collections
import sys
from collections.abc import Iterator, Sequence

_DESCRIPTION = """\
Asks a server that serves an exported recommender everything that TensorFlow Serving's protocol
defines, right and wrong, and compares codes, texts and shapes of the answers with what TensorFlow
Serving's public source says. Nothing is changed on the server.
"""

_EPILOG = """\
examples:
  python -m serving.conformance --target localhost:8500 --rest localhost:8501

  docker run --rm -p 8500:8500 -p 8501:8501 \\
    --mount type=bind,source="$PWD/models/recommender",target=/models/recommender,readonly \\
    -e MODEL_NAME=recommender tensorflow/serving --enable_grpc_healthcheck_service=true
  python -m serving.conformance --target localhost:8500 --rest localhost:8501

exit codes:
  0  all checks passed, or were skipped for the reason given
  1  at least one failed
  2  an argument is wrong, the server cannot be reached, or it does not serve the model
"""

NOT_ALL_PASSED = 1
CANNOT_CHECK = 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs all checks and prints them; returns the exit code.

    Args:
        arguments: The command line without the program's name; by default the process's own.
    """
    parser = argparse.ArgumentParser(
        prog="python -m serving.conformance",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--target", required=True, metavar="HOST:PORT", help="the gRPC address")
    parser.add_argument("--rest", metavar="HOST:PORT", help="the REST address; left out, no REST")
    parser.add_argument("--model_name", default="recommender", help="the model [%(default)s]")
    parser.add_argument(
        "--timeout", type=float, default=30.0, help="seconds for each request [%(default)s]"
    )
    parser.add_argument("--failures_only", action="store_true", help="print only what failed")
    options = parser.parse_args(arguments)

    import grpc  # After the arguments: a wrong one is answered at once.

    from serving.conformance_checks.grpc_checks import GrpcChecks
    from serving.conformance_checks.outcome import FAILED, PASSED, SKIPPED, Outcome
    from serving.conformance_checks.rest_checks import RestChecks

    try:
        over_grpc = GrpcChecks(options.target, options.model_name, options.timeout)
    except grpc.RpcError as error:
        print(f"error: {options.target}: {error.code().name}: {error.details()}", file=sys.stderr)
        return CANNOT_CHECK

    def outcomes() -> Iterator[Outcome]:
        yield from over_grpc.run()
        if options.rest is not None:
            yield from RestChecks(
                options.rest,
                options.model_name,
                over_grpc.signatures,
                over_grpc.version,
                options.timeout,
            ).run()

    counts: collections.Counter[str] = collections.Counter()
    print(f"{'':4}  {'check':44}  found")
    for outcome in outcomes():
        counts[outcome.result] += 1
        if outcome.result == FAILED:
            print(f"{outcome.result}  {outcome.name:44}  {outcome.found}")
            print(f"{'':4}  {'':44}  expected: {outcome.expected}")
        elif not options.failures_only:
            print(f"{outcome.result}  {outcome.name:44}  {outcome.found}")
    print(f"{counts[PASSED]} passed, {counts[FAILED]} failed, {counts[SKIPPED]} skipped")
    return NOT_ALL_PASSED if counts[FAILED] else 0


if __name__ == "__main__":
    sys.exit(main())
