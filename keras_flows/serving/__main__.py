"""`python -m keras_flows.serving` is `keras-flows serve`."""

import sys

from keras_flows import cli


def main(arguments=None):
    """Serve until SIGTERM or SIGINT; what is wrong is told in a sentence."""
    words = sys.argv[1:] if arguments is None else arguments
    cli.main(["serve", *words])


if __name__ == "__main__":
    main()
