"""Compare backends: ``python verify.py --config YAML --pretrained FILE --mindir FILE --onnx FILE --runner -n 512``."""

from src.startup import run


def main(argv: list[str]) -> None:
    """Read the configuration, compare."""
    from src.config import load_config

    config = load_config("verify", argv)
    from src.deploy.verify import verify

    verify(config)


if __name__ == "__main__":
    run(main)
