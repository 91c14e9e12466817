"""What the client asks of the program that it is installed into."""

import collections
import email
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

ONLY_GRPC = """
import sys

class Absent:
    '''Makes everything that is not in the extra `client` look as if it were not installed.'''

    allowed = {"bivrec_contract", "serving", "grpc", "google", "typing_extensions", "cygrpc"}

    def find_spec(self, name, path=None, target=None):
        top = name.partition(".")[0]
        if top in sys.stdlib_module_names or top in self.allowed or top.startswith("_"):
            return None
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Absent())
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """The distribution, unpacked as an installation would."""
    source, built = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    for name in ("bivrec_contract", "bivrec_tf", "components", "kubeflow", "pipeline", "serving"):
        shutil.copytree(ROOT / name, source / name)
    offline = ["--no-index", "--no-deps", "--no-build-isolation", "--quiet"]
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", *offline, "--wheel-dir", built, source], check=True
    )
    (archive,) = built.glob("*.whl")
    shutil.unpack_archive(archive, built / "unpacked", format="zip")
    return built / "unpacked"


def test_only_extras_ask_for_packages(wheel):
    (metadata,) = wheel.glob("*.dist-info/METADATA")
    requirements = email.message_from_string(metadata.read_text()).get_all("Requires-Dist")
    by_extra = collections.defaultdict(set)
    for requirement in requirements:
        name, _, marker = requirement.partition(";")
        by_extra[marker.strip()].add(re.split(r"[<>=!~ \[]", name)[0])
    assert by_extra[""] == set()
    assert by_extra['extra == "client"'] == {"grpcio", "protobuf"}
    assert not {"tensorflow", "tfx"} & by_extra['extra == "load-test"']
    assert {"tensorflow", "tfx"} <= by_extra['extra == "all"']


def run(code: str, *arguments: str, root: Path = ROOT) -> str:
    environment = {k: v for k, v in os.environ.items() if k != "TF_USE_LEGACY_KERAS"}
    environment["PYTHONPATH"] = str(root)
    process = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env=environment,
        capture_output=True,
        text=True,
        cwd=root,
        timeout=300,
    )
    assert process.returncode == 0, process.stderr
    return process.stdout.strip()


def test_without_anything_but_grpc_and_protobuf(server, wheel):
    answer = run(
        ONLY_GRPC
        + """
import asyncio, os
from serving.client import AsyncRecommenderClient, RecommenderClient

with RecommenderClient(sys.argv[1], timeout=60.0) as client:
    client.wait_until_ready()
    print(client.recommend(["item-1"], k=1, id_weight=1.0).items[0].item_id)
    print(client.similar_items("item-1").known, client.interests(["item-1"]).history_items)
    print(client.because(["item-1"], ["item-2"])[0].because, len(client.metadata()) > 3)
    try:
        client.predict("double", {"x": [1.0]})
    except ModuleNotFoundError as error:
        print(error)

async def ask():
    async with AsyncRecommenderClient(sys.argv[1], timeout=60.0) as client:
        return await client.recommend(["item-1"], k=1, id_weight=1.0)

print(asyncio.run(ask()).items[0].item_id)
heavy = {"tensorflow", "tensorflow_serving", "tf_keras", "bivrec_tf", "numpy", "pandas"}
print(heavy & {name.partition(".")[0] for name in sys.modules}, "TF_USE_LEGACY_KERAS" in os.environ)
""",
        server.target,
        root=wheel,
    )
    assert answer.splitlines() == [
        "item-11",
        "True ('item-1',)",
        "('item-1',) True",
        "predict() takes and gives arrays, and needs numpy: pip install numpy. The other methods "
        "of the client do without.",
        "item-11",
        "set() False",
    ]


@pytest.mark.slow
@pytest.mark.parametrize(("first", "second"), [("client", "tensorflow"), ("tensorflow", "client")])
def test_beside_tensorflow_with_a_keras_of_its_own(server, first, second):
    """A service that has Keras 3 models keeps them, and its protos, whatever it imports first."""
    imports = {
        "client": "from serving.client import RecommenderClient",
        "tensorflow": "import tensorflow as tf",
    }
    answer = run(
        f"""
{imports[first]}
{imports[second]}
import os, sys
from tensorflow_serving.apis import predict_pb2
with RecommenderClient(sys.argv[1], timeout=60.0) as client:
    print(client.recommend(["item-1"], k=1, id_weight=1.0).items[0].item_id)
    print(client.predict("double", {{"x": tf.constant([1.0, 2.0]).numpy()}})["y"])
request = predict_pb2.PredictRequest()
request.inputs["x"].CopyFrom(tf.make_tensor_proto([1.0]))
print("TF_USE_LEGACY_KERAS" in os.environ)
""",
        server.target,
    )
    assert answer.splitlines() == ["item-11", "[2. 4.]", "False"]
