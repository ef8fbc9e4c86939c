"""What a user can ask of the benchmark."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from typing import Literal

from pydantic import Field

from src import schema
from src.config import load_flags
from src.errors import ConfigError

MODES = ("infer", "train", "data", "deploy")
OWN_ENVIRONMENT = Path(__file__).parents[2] / ".venv-bench"
INSTALL = "python -m venv .venv-bench && .venv-bench/bin/pip install -r requirements-bench.txt"


class BenchmarkConfig(schema.Section):
    """benchmark.py infer|train: this project and a peer in turns, on the same work and threads."""

    arch: str = Field("all", description="cases, separated by commas")
    peer: Literal["timm", "zoo"] = Field(
        "timm",
        description="timm, and for CCT the authors' architecture in torch; zoo: the model zoo's way to compute TNT",
    )
    peer_python: schema.Path = Field(None, description="interpreter that has torch and timm")
    threads: schema.Count = Field(1, description="threads and processor cores of either side")
    batch_size: schema.or_none(schema.Count) = Field(
        None, description="images per step; empty for the case's or the recipe's own"
    )
    rounds: schema.Count = Field(7, description="turns of either side")
    breakdown: bool = Field(
        False,
        description="train: what train.py's loop adds to the bare step, part by part, and what options of the step "
        "cost; without a peer. Reading processes share the cores",
    )
    config: schema.Path = Field(
        None, description="breakdown: recipe (YAML) with data to measure, in place of cases on noise"
    )
    json_path: schema.Path = Field(None, description="file for the figures")


class DataBenchmarkConfig(schema.Section):
    """benchmark.py data: this project's input pipeline and a peer's in turns, with the same worker processes."""

    arch: str = Field("all", description="cases, separated by commas: imagenet_train, imagenet_eval, cifar_train")
    peer: Literal["timm", "decode"] = Field(
        "timm", description="timm's loader with its prefetcher; decode: nothing but decoding, in this project's workers"
    )
    peer_python: schema.Path = Field(None, description="interpreter that has torch and timm")
    workers: schema.Count = Field(2, description="processes of either side that read and transform")
    batch_size: schema.or_none(schema.Count) = Field(None, description="images per batch; empty for the case's own")
    rounds: schema.Count = Field(5, description="turns of either side, each of one epoch")
    json_path: schema.Path = Field(None, description="file for the figures")


class DeployBenchmarkConfig(schema.Section):
    """benchmark.py deploy: the C++ runner, ONNX Runtime and MindSpore in turns, on the same weights and threads."""

    arch: str = Field("all", description="models, separated by commas: any of this project's")
    threads: schema.Count = Field(1, description="threads and processor cores of each side")
    batch_sizes: schema.Counts = Field((1, 8), description="images per call, one line of the table for each")
    rounds: schema.Count = Field(5, description="turns of each side")
    json_path: schema.Path = Field(None, description="file for the figures")


_SECTIONS = {"data": DataBenchmarkConfig, "deploy": DeployBenchmarkConfig}


def read_command_line(argv: list[str]) -> tuple[str, BenchmarkConfig | DataBenchmarkConfig | DeployBenchmarkConfig]:
    """The mode, which is the first word, and its flags.

    Raises:
        ConfigError: every fault of the command line.
    """
    if not {"-h", "--help"} & set(argv) and (not argv or argv[0] not in MODES):
        raise ConfigError("command line", "the first word says what is measured", argv[0] if argv else "nothing", MODES)
    section = _SECTIONS.get(argv[0], BenchmarkConfig)
    config = load_flags(section, "benchmark", argv[1:] if argv[0] in MODES else argv)
    if isinstance(config, BenchmarkConfig):
        if config.breakdown and argv[0] != "train":
            raise ConfigError("--breakdown", "is of train alone", argv[0])
        if config.config is not None and not config.breakdown:
            raise ConfigError("--config", "needs --breakdown True", config.config)
    return argv[0], config


def find_peer_python(given: str | None) -> str:
    """The interpreter for the peer: the given one, else this one, else that of ``.venv-bench``.

    Raises:
        ConfigError: none of them has torch and timm.
    """
    if given is not None:
        probe = "import importlib.util as u, sys; sys.exit(not (u.find_spec('torch') and u.find_spec('timm')))"
        try:
            if subprocess.run([given, "-c", probe], capture_output=True, timeout=60, check=False).returncode == 0:
                return given
        except (OSError, subprocess.TimeoutExpired):
            pass
        raise ConfigError("--peer_python", f"must have torch and timm; to install them: {INSTALL}", given)
    if importlib.util.find_spec("torch") and importlib.util.find_spec("timm"):
        return sys.executable
    if (OWN_ENVIRONMENT / "bin" / "python").exists():
        return str(OWN_ENVIRONMENT / "bin" / "python")
    raise ConfigError("--peer_python", f"no interpreter with torch and timm; to install them: {INSTALL}")
