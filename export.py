"""Export weights: ``python export.py --config configs/NAME.yaml --pretrained FILE [--file_format MINDIR|ONNX]``."""

from src.startup import run


def main(argv: list[str]) -> None:
    """Read the configuration, export."""
    from src.config import load_config

    config = load_config("export", argv)
    from src.deploy.exporter import export_model

    export_model(config)


if __name__ == "__main__":
    run(main)
