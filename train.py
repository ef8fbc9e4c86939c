"""Train a model: ``python train.py --config configs/NAME.yaml [--key value ...]``."""

from src.startup import run


def main(argv: list[str]) -> None:
    """Read the configuration, train."""
    from src.config import load_config

    config = load_config("train", argv)
    from src.report.training import train_and_report

    train_and_report(config)


if __name__ == "__main__":
    run(main)
