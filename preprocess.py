"""Files for the C++ runner (--data_path FOLDER), faults of a data set (--check DATA), augmented images (--preview)."""

from src.startup import run


def main(argv: list[str]) -> None:
    """Read the flags, do the job they are for."""
    from src.deploy.preprocess_jobs import read_command_line, run_job

    run_job(read_command_line(argv))


if __name__ == "__main__":
    run(main)
