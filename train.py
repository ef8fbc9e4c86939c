"""Train a model: ``python train.py --config configs/NAME.yaml [--key value ...]``."""

from src.startup import run


def main(argv: list[str]) -> None:
    """Read the configuration, train."""
    from src.config import load_config

    config = load_config("train", argv)
    from src.trainers.trainer import train

    train(config)


if __name__ == "__main__":
    run(main)
