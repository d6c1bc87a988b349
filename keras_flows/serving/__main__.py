"""Serve an export or a preset over HTTP.

    python -m keras_flows.serving --export=served
    KERAS_BACKEND=jax python -m keras_flows.serving --preset=sit_digits

POST /sample takes JSON, all of it optional but the condition of a conditional
model: {"num_samples": 16, "seed": 0, "condition": 3, "num_steps": 4,
"guidance_scale": 1.5, "encoding": "json"}. A page to try it lies at /, what is
served at /model, metrics at /metrics. docs/serving.md tells more.

Needs pip install 'keras_flows[serve]', and TensorFlow for a SavedModel.
"""

import argparse
import logging
import sys


def parser():
    found = argparse.ArgumentParser(
        "python -m keras_flows.serving",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = found.add_argument
    what = found.add_mutually_exclusive_group(required=True)
    what.add_argument(
        "--export", help="folder of `model.export`, or its parent"
    )
    what.add_argument("--preset", help="a name, a folder or a handle")
    add("--num_steps", type=int, help="default steps of a preset")
    add("--guidance_scale", type=float, default=1.0, help="its guidance")
    add("--host", default="127.0.0.1", help="address to listen on")
    add("--port", type=int, default=8000, help="port, or 0 for a free one")
    add(
        "--allowed_hosts",
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
        ("wait_ms", float, 5.0, "how long a request waits for others"),
        ("max_samples", int, 256, "most samples of a request"),
        ("max_bytes", int, 1 << 20, "most bytes of a request"),
        ("max_waiting", int, 4096, "most samples that wait"),
        ("max_requests", int, 512, "most requests in work"),
        ("max_values", int, 1 << 22, "most numbers of an answer"),
        ("body_seconds", float, 10.0, "how long a body may take"),
    ):
        add(f"--{name}", type=kind, default=default, help=f"{told} ({default})")
    return found


def listed(text):
    return [part.strip() for part in text.split(",") if part.strip()]


def main(arguments=None):
    """Serve until SIGTERM or SIGINT; what is wrong is told in a sentence."""
    command = parser()
    flags = vars(command.parse_args(arguments))
    try:
        import fastapi  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError:
        command.error(
            "the service needs FastAPI and uvicorn: pip install "
            "'keras_flows[serve]'"
        )
    from keras_flows import serving
    from keras_flows.serving import server

    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s"
    )
    take = flags.pop
    export, preset = take("export"), take("preset")
    host, port = take("host"), take("port")
    of_preset = take("num_steps"), take("guidance_scale")
    if not 0 <= port < 1 << 16:
        command.error(f"--port must be from 0 to 65535. Received: {port}.")
    if export is not None and of_preset != (None, 1.0):
        command.error("steps and guidance of an export are fixed in it")
    try:
        # Before the model is loaded, which takes longer.
        found = server.bind(host, port)
        if export is not None:
            source = serving.from_export(export)
        else:
            source = serving.from_preset(preset, *of_preset)
        service = serving.create_app(source, **flags)
        server.serve(service, found, host)
    except (ValueError, server.Unbound) as error:
        sys.exit(f"keras_flows.serving: {error}")


if __name__ == "__main__":
    main()
