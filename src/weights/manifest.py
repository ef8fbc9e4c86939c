"""The .json beside a checkpoint of ours: what the file must hold, and which run and classes it belongs to."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from src.errors import ModelFileError
from src.files import sha256, write_text


class Manifest(BaseModel):
    """Commit mark of one checkpoint: the file counts as written once this lies beside it.

    Attributes:
        file: name of the checkpoint.
        bytes: its size.
        sha256: of its content.
        arch: of the network.
        epoch: epochs that are done.
        step: updates that are done.
        steps_per_epoch: updates.
        metrics: record of the last epoch that is done.
        state: what a run needs besides the tensors to go on as if it had not stopped.
        class_names: in the order of the outputs.
        shapes: of the tensors.
        versions: of what wrote it.
        config: of the run, key by key.
    """

    model_config = ConfigDict(frozen=True)

    file: str
    bytes: int
    sha256: str
    arch: str
    epoch: int
    step: int
    steps_per_epoch: int
    metrics: dict[str, Any]
    state: dict[str, Any] = {}
    class_names: list[str]
    shapes: dict[str, list[int]]
    versions: dict[str, str]
    config: dict[str, Any]


def manifest_path(checkpoint: Path) -> Path:
    """Where the manifest of a checkpoint lies."""
    return checkpoint.with_suffix(".json")


def write_manifest(checkpoint: Path, manifest: Manifest) -> None:
    """Write the manifest of a checkpoint atomically."""
    write_text(manifest_path(checkpoint), manifest.model_dump_json(indent=1) + "\n")


def read_manifest(checkpoint: Path) -> Manifest | None:
    """The manifest beside a checkpoint; None where there is none, or another kind of JSON."""
    try:
        return Manifest.model_validate_json(manifest_path(checkpoint).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, ValidationError):
        return None


def verified_manifest(checkpoint: Path) -> Manifest | None:
    """The manifest that describes exactly the bytes of this file; None for a file without one.

    ``best.ckpt`` is another name of an epoch's checkpoint. When a run is killed between its two renames, the bytes are
    those of a neighbour's manifest, and that one is returned.

    Raises:
        ModelFileError: no such file, or its bytes are not what its manifest says.
    """
    if not checkpoint.is_file():
        raise ModelFileError(checkpoint, "no such file")
    own = read_manifest(checkpoint)
    if own is None:
        return None
    size = checkpoint.stat().st_size
    digest = sha256(checkpoint)
    neighbours = (read_manifest(path) for path in sorted(checkpoint.parent.glob("*.json")))
    for manifest in (own, *neighbours):
        if manifest is not None and (manifest.bytes, manifest.sha256) == (size, digest):
            return manifest
    rule = f"is damaged: its content is not what {manifest_path(checkpoint).name} says, use another checkpoint"
    raise ModelFileError(checkpoint, rule, f"{size} bytes", f"{own.bytes} bytes, sha256 {own.sha256[:12]}…")


def flat_config(config: BaseModel) -> dict[str, Any]:
    """Key -> plain value of a configuration, as users write it."""
    return {key: value for section in json.loads(config.model_dump_json()).values() for key, value in section.items()}
