"""The best weights of a run as files for other programs, proven equal to the checkpoint."""

from __future__ import annotations

from pathlib import Path

from src.deploy.cpp_runner import PROJECT, built_runner
from src.deploy.exporter import export_model
from src.deploy.verify import verify
from src.device import check_installation
from src.errors import ConfigError
from src.schema import Config


def deliver(config: Config, weights: Path) -> None:
    """Export as MINDIR and ONNX, and compare each with the checkpoint on the images of val.

    With the key ``runner`` the C++ runner too, on ``ARCH_v1.mindir``. `verify` writes ``verify.json``.

    Args:
        config: of the run, resolved.
        weights: the checkpoint.

    Raises:
        UserError: as `export_model` and `verify`; what was written before stays.
    """
    given = {"pretrained": str(weights), "use_ema": config.optim.with_ema}
    config = config.model_copy(update={"model": config.model.model_copy(update=given)})
    mindir = _export(config, file_format="MINDIR", ir_version=3)
    onnx = _export(config, file_format="ONNX", ir_version=3)
    if config.verify.runner:
        _export(config, file_format="MINDIR", ir_version=1, file_name=f"{mindir.stem}_v1")
    files = {"mindir_path": str(mindir), "onnx_path": str(onnx), "result_dir": None}
    verify(config.model_copy(update={"verify": config.verify.model_copy(update=files)}))


def require_deliverable(config: Config) -> None:
    """What `deliver` needs is there: said before a run, and not at its end.

    Raises:
        ConfigError: no images to compare on.
        UserError: a package is missing, or the C++ runner that is wanted cannot be built.
    """
    if not config.run.do_val:
        raise ConfigError("verified_export", "compares on the images of val, which needs do_val", False, "True")
    check_installation(("onnx", "onnxruntime"))
    if config.verify.runner:
        built_runner(PROJECT)


def _export(config: Config, **values: object) -> Path:
    export = config.export.model_copy(update={"quantization": "none", **values})
    return export_model(config.model_copy(update={"export": export}))
