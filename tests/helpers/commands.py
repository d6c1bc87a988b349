"""The command line in this process."""

from keras_flows.cli import main


def run(*words):
    """Exit code of a command in this process."""
    try:
        main([str(word) for word in words])
    except SystemExit as end:
        return end.code or 0
    return 0


def refused(capsys, *words):
    """The sentence of a command that cannot do its work."""
    assert run(*words) == 1
    (line,) = capsys.readouterr().err.strip().splitlines()
    return line.removeprefix("keras-flows: ")
