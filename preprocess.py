"""Images for the C++ runner: ``python preprocess.py --data_path FOLDER --model_info MODEL.json``."""

from src.startup import run


def main(argv: list[str]) -> None:
    """Read the flags, write the files."""
    from src.config import load_flags
    from src.deploy.runner_inputs import preprocess
    from src.schema import PreprocessConfig

    preprocess(load_flags(PreprocessConfig, "preprocess", argv))


if __name__ == "__main__":
    run(main)
