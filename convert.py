"""Weights under other names: ``python convert.py --from FILE ... --to FILE [--arch NAME]``, or ``--list [PATTERN]``."""

from src.startup import run


def main(argv: list[str]) -> None:
    """Read the flags, convert or list."""
    from src.weights.convert_settings import read_command_line

    request = read_command_line(argv)
    from src.weights.convert import convert, list_models

    if request.pattern is not None:
        list_models(request.pattern)
    else:
        convert(request.sources, request.config)


if __name__ == "__main__":
    run(main)
