"""`keras-flows serve`."""

import logging

from keras_flows import serving

# Flags of the command line, not of the service.
OWN = ("command", "backend", "verbose")


def run(flags):
    """Serve until SIGTERM or SIGINT."""
    try:
        import fastapi  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as error:
        raise ImportError(
            "The service needs FastAPI and uvicorn: pip install "
            "'keras_flows[serve]'"
        ) from error
    from keras_flows.serving import server

    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s"
    )
    given = {k: v for k, v in vars(flags).items() if k not in OWN}
    take = given.pop
    export, preset = take("export"), take("preset")
    host, port = take("host"), take("port")
    of_preset = take("num_steps"), take("guidance_scale")
    if not 0 <= port < 1 << 16:
        raise ValueError(f"--port must be from 0 to 65535. Received: {port}.")
    if export is not None and of_preset != (None, 1.0):
        raise ValueError("Steps and guidance of an export are fixed in it.")
    try:
        # Before the model is loaded, which takes longer.
        found = server.bind(host, port)
        if export is not None:
            source = serving.from_export(export)
        else:
            source = serving.from_preset(preset, *of_preset)
        server.serve(serving.create_app(source, **given), found, host)
    except server.Unbound as error:
        raise ValueError(str(error)) from None
