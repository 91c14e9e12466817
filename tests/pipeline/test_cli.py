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


def test_a_warm_start_that_nothing_would_use_is_refused_before_anything_is_read(bivrec, tmp_path):
    config = tmp_path / "shop.yaml"
    config.write_text(
        "{name: shop, interactions: {path: none.csv}, items: {path: none.csv}, "
        "modalities: [{name: text, kind: text, columns: [name]}], "
        "training: {item_initialisation: random}}"
    )
    run = ("run", "--config", str(config), "--output", str(tmp_path / "out"))
    finished = bivrec(*run, "--warm-start", str(tmp_path))
    assert finished.returncode == 2, finished.stderr
    assert "training.warm_start needs item_initialisation: co_occurrence" in finished.stderr
    assert "Traceback" not in finished.stderr and not (tmp_path / "out").exists()
