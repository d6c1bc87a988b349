"""The flags of `keras-flows serve` and `python -m keras_flows.serving`."""

TEXT = """Serve an export or a preset over HTTP.

    keras-flows serve --export=served
    keras-flows serve --preset=sit_digits

POST /sample takes JSON, all of it optional but the condition of a conditional
model: {"num_samples": 16, "seed": 0, "condition": 3, "num_steps": 4,
"guidance_scale": 1.5, "encoding": "json"}. A page to try it lies at /, what is
served at /model, metrics at /metrics. docs/serving.md tells more.

Needs pip install 'keras_flows[serve]', and TensorFlow for a SavedModel."""


def add_arguments(command):
    """Put the flags into an `argparse.ArgumentParser`."""
    add = command.add_argument
    what = command.add_mutually_exclusive_group(required=True)
    what.add_argument(
        "--export", help="folder of `model.export`, or its parent"
    )
    what.add_argument("--preset", help="a name, a folder or a handle")
    add("--num-steps", "--steps", type=int, dest="num_steps",
        help="default calls of a sample of a preset")  # fmt: skip
    add("--guidance-scale", type=float, default=1.0, help="default guidance")
    add("--host", default="127.0.0.1", help="address to listen on")
    add("--port", type=int, default=8000, help="port, or 0 for a free one")
    add(
        "--allowed-hosts",
        type=listed,
        default=[],
        help="names it is reached by, with commas, beside localhost and its "
        "addresses; *.example.com for all below one, * for any",
    )
    add(
        "--sizes",
        type=lambda text: [int(size) for size in listed(text)],
        default=[1, 4, 16, 64],
        help="static batch sizes, with commas",
    )
    for name, kind, default, told in (
        ("wait-ms", float, 5.0, "how long a request waits for others"),
        ("max-samples", int, 256, "most samples of a request"),
        ("max-bytes", int, 1 << 20, "most bytes of a request"),
        ("max-waiting", int, 4096, "most samples that wait"),
        ("max-requests", int, 512, "most requests in work"),
        ("max-values", int, 1 << 22, "most numbers of an answer"),
        ("body-seconds", float, 10.0, "how long a body may take"),
    ):
        add(f"--{name}", type=kind, default=default, help=told)


def listed(text):
    """The parts of a list with commas."""
    return [part.strip() for part in text.split(",") if part.strip()]
