"""Evaluate weights: ``python eval.py --config configs/NAME.yaml --pretrained FILE [--key value ...]``."""

from src.startup import run


def main(argv: list[str]) -> None:
    """Read the configuration, evaluate."""
    from src.config import load_config

    config = load_config("eval", argv)
    from src.trainers.evaluator import evaluate_checkpoint

    evaluate_checkpoint(config)


if __name__ == "__main__":
    run(main)
