"""Evaluate weights: ``python eval.py --config configs/NAME.yaml --pretrained FILE [--key value ...]``."""

from src.startup import run


def main(argv: list[str]) -> None:
    """Read the configuration, evaluate."""
    from src.config import load_config

    config = load_config("eval", argv)
    from src.report.evaluation import evaluate_and_report

    evaluate_and_report(config)


if __name__ == "__main__":
    run(main)
