"""One process per device: ``python distribute.py --rank_table_file FILE | --device_num N train.py [--key value]``."""

from src.startup import run


def main(argv: list[str]) -> None:
    """Read the command line, start the ranks, wait for them."""
    from src.trainers.launch_plan import read_command_line
    from src.trainers.launcher import launch

    launch(*read_command_line(argv))


if __name__ == "__main__":
    run(main, needs=("pydantic", "PyYAML"))
