"""`python -m keras_flows` is `keras-flows`."""

from keras_flows.cli import main

if __name__ == "__main__":
    main()
