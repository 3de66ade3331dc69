"""The repository root is the package: `daemon/spool.py` is `denoised.daemon.spool`."""

import re
from pathlib import Path

from setuptools import setup

HERE = Path(__file__).parent
FOLDERS = ["", "config", "engines", "plugins", "plugins.defect_synthesis", "plugins.sensor_imputation"]
FOLDERS += ["daemon", "daemon.board", "daemon.core", "daemon.cli", "demo", "training"]

setup(
    name="denoised",
    version=re.findall(r'__version__ = "(.+?)"', (HERE / "__init__.py").read_text())[0],
    description="Diffusion jobs on industrial gateways, over MQTT",
    long_description=(HERE / "README.md").read_text() if (HERE / "README.md").exists() else "",
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    license_files=["LICENSE"],
    python_requires=">=3.10",
    package_dir={"denoised": "."},
    packages=[".".join(filter(None, ["denoised", f])) for f in FOLDERS],
    package_data={"denoised": ["models/*/*"], "denoised.config": ["*.yaml"], "denoised.training": ["*.npz"]},
    install_requires=["msgspec>=0.18.6", "numpy>=1.26", "opencv-python-headless>=4.9", "paho-mqtt>=2.0", "pyyaml>=6.0"],
    extras_require={
        "onnx": ["onnxruntime>=1.18"],
        "tensorrt": ["tensorrt>=10.3,<12", "pycuda>=2024.1"],
        "rtx": ["tensorrt-rtx>=1.4", "pycuda>=2024.1"],
        "systemd": ["systemd-python>=235"],
        "sparkplug": ["protobuf>=4.22"],
        "demo": ["amqtt>=0.11"],
        "dev": [
            "hypothesis",
            "jsonschema>=4.18",
            "mypy",
            "onnx>=1.16",
            "pytest>=8",
            "ruff",
            "setuptools>=70.1",
            "types-PyYAML",
            "types-jsonschema",
            "types-setuptools",
        ],
        "peers": ["diffusers>=0.35", "onnx>=1.16", "torch>=2.2"],
        "train": ["torch>=2.2", "onnx>=1.16", "onnxscript", "onnxruntime>=1.18"],
    },
    entry_points={
        "console_scripts": ["denoised = denoised.daemon.cli.main:main", "denoised-train = denoised.training.cli:main"],
        "denoised.kinds": [
            "defect-synthesis = denoised.plugins.defect_synthesis.kind:KIND",
            "sensor-imputation = denoised.plugins.sensor_imputation.kind:KIND",
        ],
    },
)
