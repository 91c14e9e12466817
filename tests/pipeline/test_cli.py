"""The command, where no run is needed."""

import subprocess
import sys

import pytest

HEAVY = {"tensorflow", "tfx", "apache_beam", "pandas", "numpy", "grpc"}


def test_help_imports_nothing_heavy():
    """What makes `bivrec --help` answer at once; its time itself depends on the machine."""
    code = (
        "import sys\n"
        "from pipeline.cli import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        "print('IMPORTED', *sorted(sys.modules))\n"
    )
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    told, imported = finished.stdout.split("IMPORTED")
    assert not HEAVY & {name.split(".")[0] for name in imported.split()}
    for command in ("run", "serve", "recommend", "kubeflow", "tensorboard"):
        assert f"  {command} " in told


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["recommend", "--target", "localhost:1"], "either --history or --user"),
        (["recommend", "--target", "localhost:1", "--user", "3"], "--user needs --config"),
        (["run", "--config", "nowhere.yaml", "--output", "out"], "nowhere.yaml"),
        (["serve", "--model-dir", "nowhere"], "nowhere"),
        (["recommend", "--target", "localhost:1", "--history", "1", "--timeout", "1"], "localhost"),
    ],
)
def test_what_the_user_can_put_right_is_said_and_exits_with_2(arguments, told, bivrec):
    finished = bivrec(*arguments)
    assert finished.returncode == 2, finished.stderr
    assert told in finished.stderr
    assert "Traceback" not in finished.stderr
