"""`keras-flows export`."""

import json
import pathlib

import keras

import keras_flows as kf
from keras_flows.cli import measuring
from keras_flows.ops.files import write_text
from keras_flows.serving import page

# Of a policy some flags have no meaning; and their defaults.
OF_SAMPLES = {
    "guidance_scale": 1.0,
    "guidance_interval": None,
    "guidance_channels": None,
    "decoder": None,
    "output_range": None,
}


def run(flags):
    """Write the export, and measure it where asked to."""
    model = kf.Interface.from_preset(flags.model)
    settings = settings_of(model, flags)
    if flags.measure and (flags.decoder or flags.output_range):
        raise ValueError("--measure is of samples, without a decoder.")
    if flags.out is None and flags.measure is None:
        raise ValueError("--out is missing: the folder to write.")
    if flags.out is not None:
        _write(model, flags, settings)
    if flags.measure is not None:
        file = pathlib.Path(flags.measure)
        figures = json.loads(file.read_text()) if file.exists() else {}
        found = measuring.measure(model, settings, flags.rounds)
        figures[f"{flags.model}, {found['backend']}"] = found
        write_text(file, json.dumps(figures, indent=2) + "\n")
        print(f"Measured: {file}")


def _write(model, flags, settings):
    if flags.format == "web":
        page.write_page(
            model, flags.out, flags.web_runtime, verbose=False, **settings
        )
        print(f"{flags.out}: open index.html by any file server")
        return
    model.export(flags.out, flags.format, version=flags.version, **settings)


def settings_of(model, flags):
    """The arguments of `export` that the flags give."""
    settings = {
        "num_steps": flags.num_steps,
        "sampler": flags.sampler,
        "use_ema": flags.use_ema,
    }
    given = {name: getattr(flags, name) for name in OF_SAMPLES}
    if isinstance(model, kf.policies.Policy):
        for name, value in given.items():
            if value != OF_SAMPLES[name]:
                flag = name.replace("_", "-")
                raise ValueError(f"A policy has no --{flag}; leave it out.")
        return settings
    if flags.decoder is not None:
        given["decoder"] = decoder(flags.decoder)
    return settings | given


def decoder(path):
    """The decoder of an autoencoder's Keras file or preset."""
    if path.endswith(".keras"):
        return keras.saving.load_model(path, compile=False).decoder
    return kf.networks.AutoencoderKL.from_preset(path).decoder
