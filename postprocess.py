"""Accuracy of the C++ runner: ``python postprocess.py --result_dir ./result_Files``. Runs without MindSpore."""

from src.startup import run


def main(argv: list[str]) -> None:
    """Read the flags, print top-1 and top-5, write the tables of classes."""
    from src.config import load_flags
    from src.deploy.results import PostprocessConfig, postprocess

    postprocess(load_flags(PostprocessConfig, "postprocess", argv))


if __name__ == "__main__":
    run(main, needs=("numpy", "pydantic", "PyYAML"))
