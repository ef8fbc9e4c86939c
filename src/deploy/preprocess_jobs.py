"""The three jobs of preprocess.py: files for the C++ runner, faults of a data set, a picture of training batches."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from src.aliases import CONFIG_FLAGS
from src.config import load_config, load_flags
from src.data.check import CheckConfig, check
from src.data.preview import preview
from src.deploy.runner_inputs import PreprocessConfig, preprocess
from src.errors import ConfigError
from src.schema import Config

CHECK, PREVIEW = "--check", "--preview"
_INPUTS = {f"--{key}" for key in PreprocessConfig.model_fields}
# What each job has no use for, among the flags of the others.
_STRANGERS = {
    CHECK: {PREVIEW, *_INPUTS, *(f"--{name}" for name in CONFIG_FLAGS)},
    PREVIEW: {CHECK, "--details", *_INPUTS},
}


@dataclass(frozen=True)
class PreviewRequest:
    """A picture to draw: the file, and the training whose batches are wanted."""

    target: Path
    config: Config


Request = PreprocessConfig | CheckConfig | PreviewRequest


def read_command_line(argv: list[str]) -> Request:
    """Flags of one of three jobs: files for the runner, ``--check DATA``, ``--preview FILE`` with flags of train.py.

    Raises:
        ConfigError: flags of two jobs, or every fault of the flags.
    """
    given = [word.split("=")[0] for word in argv if word.startswith("--")]
    job = next((word for word in (CHECK, PREVIEW) if word in given), None)
    strangers = [word for word in given if word in _STRANGERS.get(job, ())]
    if strangers:
        raise ConfigError(job, f"does not go together with {', '.join(dict.fromkeys(strangers))}")
    if job == CHECK:
        return load_flags(CheckConfig, "preprocess", argv)
    if job == PREVIEW:
        target, rest = _take_target(argv)
        return PreviewRequest(target, load_config("train", rest))
    return load_flags(PreprocessConfig, "preprocess", argv)


def _take_target(argv: list[str]) -> tuple[Path, list[str]]:
    """The value of ``--preview``, and the other words."""
    place = next(index for index, word in enumerate(argv) if word.split("=")[0] == PREVIEW)
    _, is_joined, value = argv[place].partition("=")
    end = place + 1
    if not is_joined and end < len(argv) and not argv[end].startswith("-"):
        value, end = argv[end], end + 1
    if not value:
        raise ConfigError(PREVIEW, "must name the picture to write, .png or .jpg")
    return Path(value), argv[:place] + argv[end:]


def run_job(request: Request) -> None:
    """Write the runner's files, check a data set, or draw training batches.

    Raises:
        UserError: as `preprocess`, `check` and `preview`.
    """
    if isinstance(request, CheckConfig):
        check(request)
    elif isinstance(request, PreviewRequest):
        # The other jobs work, and start faster, without MindSpore.
        from src.models import resolved
        from src.weights.class_count import with_class_count

        counted = with_class_count(request.config, by_weights=False, by_images=True)
        preview(resolved(counted), request.target)
    else:
        preprocess(request)
