"""`model.export`: noise (and condition) in, sample out, weights inside."""

import dataclasses
import hashlib
import json
import os
import pathlib
import shutil
import tempfile

import keras
import numpy as np
from keras import ops

from keras_flows import samplers
from keras_flows.export import onnx
from keras_flows.export import saved_model
from keras_flows.export import worker
from keras_flows.export.endpoint import Endpoint
from keras_flows.ops import compiled
from keras_flows.samplers.base import batch_of

TOLERANCE = 1e-4
SIGNATURE = "signature.json"

# What each format needs beside Keras, and the file by which it is known.
FORMATS = {
    "tf_saved_model": (("tensorflow",), "saved_model.pb"),
    "onnx": (("tensorflow", "tf2onnx", "onnxruntime"), onnx.MODEL),
}


class Exportable:
    """Mixin with `export`; needs `generate` and its parts."""

    def export(
        self,
        filepath,
        format="tf_saved_model",
        *,
        version=None,
        num_steps=None,
        sampler=None,
        guidance_scale=1.0,
        guidance_interval=None,
        guidance_channels=None,
        decoder=None,
        output_range=None,
        use_ema=True,
        verbose=True,
    ):
        """Export the sampler as a SavedModel or as ONNX.

        A SavedModel is loaded by TensorFlow alone, without Keras. Each of its
        endpoints takes any batch size:

        - `serve`: "noise" (B, ...), standard normal, and, for a conditional
          model, "condition" (or a "condition_<key>" for each key of one that
          is a dict), to "samples" (B, ...);
        - `from_seed`: "seed", and "condition" or, without one, "batch_size",
          to "samples". The noise is TensorFlow's, by Philox, the same
          wherever the file runs, but not that of `generate(seed=...)`;
        - `velocity`: "x", "t"[, "r"][, "condition"] to "velocity" dx/dt in
          the interpolant's time, unguided, undecoded: what `pred` gives.

        ONNX, folder/model.onnx, has `serve` alone. Beside either lies
        signature.json: inputs, outputs, settings, weights, versions and the
        files' SHA-256.

        Before the export takes its place each endpoint is loaded and compared
        with `generate` and `pred`. A difference above 1e-4 (of the largest
        value, where that is above 1) is an error and leaves nothing behind.
        What this backend cannot write (PyTorch a SavedModel, PyTorch and JAX
        ONNX) a TensorFlow subprocess writes.

        Args:
            filepath: folder to write; its parent must be writable. An earlier
                export there is replaced.
            format: "tf_saved_model" or "onnx".
            version: int, to write filepath/<version> beside other versions,
                as TensorFlow Serving lays them out; None for filepath itself.
            num_steps: see `generate`; fixed in the export.
            sampler: a sampler without noise of its own; see `generate`.
            guidance_scale: see `generate`; fixed in the export.
            guidance_interval: see `generate`; fixed in the export.
            guidance_channels: see `generate`; fixed in the export.
            decoder: `keras.Model` from samples to what is served, such as the
                `decoder` of a `networks.AutoencoderKL`.
            output_range: (low, high) to which the served values are mapped
                from [-1, 1], after clipping, such as (0, 255) for pixels.
            use_ema: whether to export the first EMA's weights.
            verbose: whether to print a line.

        Raises:
            ValueError: on an argument that does not fit, or if the folder
                exists and is no export.
            ImportError: if a package that the format needs is not installed.
            RuntimeError: if the file differs from the model.
        """
        settings = self._export_settings(
            num_steps,
            sampler,
            guidance_scale,
            guidance_interval,
            guidance_channels,
        )
        settings["output_range"] = _output_range(output_range)
        _check_decoder(decoder, self.sample_shape)
        self._export(
            filepath, format, version, settings, decoder, use_ema, verbose
        )

    def _export(
        self, filepath, format, version, settings, decoder, use_ema, verbose
    ):
        """Write, compare, then move into place."""
        _check_format(format)
        target = _target(filepath, version)
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = pathlib.Path(
            tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent)
        )
        try:
            folder = temporary / "export"
            if _writes_itself(format):
                self._write_export(folder, format, settings, decoder, use_ema)
            else:
                self._order_export(
                    temporary, folder, format, settings, decoder, use_ema
                )
            parity = self._verify(folder, format, settings, decoder, use_ema)
            endpoints = self._endpoints(settings, decoder, use_ema)
            _write_signature(
                folder,
                self._record(format, settings, decoder, use_ema)
                | {"endpoints": _described(endpoints, format)}
                | {"parity": parity, "tolerance": TOLERANCE},
            )
            _move(folder, target, temporary)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        if verbose:
            print(
                f"Exported to {target}: {settings['num_steps']} steps, "
                f"largest difference from {self._exported} "
                f"{max(parity.values()):.1e}."
            )

    def _export_settings(
        self, num_steps, sampler, guidance_scale, interval, channels
    ):
        sampler = (
            self.default_sampler if sampler is None else samplers.get(sampler)
        )
        num_steps = self.default_num_steps if num_steps is None else num_steps
        if num_steps == 1 and isinstance(sampler, samplers.FlowMapJump):
            # Its one step is the last, which adds no noise.
            sampler = dataclasses.replace(sampler, renoise=0.0)
        if sampler.stochastic:
            raise ValueError(
                "`sampler` draws noise in every step, which the exported "
                f"signature has no input for. Received: {sampler}; use an "
                "ODE sampler or a flow-map jump."
            )
        if sampler.adaptive:
            raise ValueError(
                "`sampler` chooses its steps by the data, which a graph "
                f"cannot. Received: {sampler}; use one with fixed steps."
            )
        sampler.times(self.interpolant, num_steps)
        if self.sample_shape is None:
            raise ValueError(
                "The network does not tell the shape of a sample: export "
                "needs a functional network."
            )
        return {
            "num_steps": int(num_steps),
            "sampler": sampler,
            "guidance_scale": float(guidance_scale),
            "guidance_interval": self._interval(interval),
            "guidance_channels": self._channels(channels),
        }

    # What is exported; a policy has other inputs.

    _exported = "generate"

    def _other_inputs(self):
        """{name: (shape, dtype)} of what goes in beside x or noise."""
        condition = self.network.input.get("condition")
        if condition is None:
            return {}
        if not isinstance(condition, dict):
            return {"condition": _spec(condition)}
        return {f"condition_{k}": _spec(v) for k, v in condition.items()}

    @staticmethod
    def _condition_of(inputs):
        """The condition among the inputs of an endpoint, or None."""
        if "condition" in inputs:
            return inputs["condition"]
        parts = {
            name.removeprefix("condition_"): value
            for name, value in inputs.items()
            if name.startswith("condition_")
        }
        return parts or None

    def _export_layers(self, use_ema):
        """The layers whose weights the file holds."""
        return [self.inference_network(use_ema)]

    def _sampling_function(self, settings, use_ema):
        """The function of an endpoint's inputs to samples, for tracing."""
        sampler, interval = settings["sampler"], settings["guidance_interval"]
        network = self.inference_network(use_ema)
        times = sampler.times(self.interpolant, settings["num_steps"])
        times = times.astype("float32")
        # Known before the trace, so that steps outside the interval have one
        # network call, not two.
        guided_steps = {
            float(t)
            for t, r in zip(times[:-1], times[1:], strict=True)
            if self.guidance_acts(
                interval, sampler.calls, self.interpolant, t, r
            )
        }

        def sample(inputs):
            condition, scale = self.absorb_guidance(
                self._condition_of(inputs),
                settings["guidance_scale"],
                ops.shape(inputs["noise"])[0],
            )
            negative = self._negative(condition, None, scale, None)
            plain = self.predictor(network, condition)
            guided = self.predictor(
                network,
                condition,
                negative,
                scale,
                interval,
                settings["guidance_channels"],
            )

            def advance(x, t, r, noise, state, left):
                model = guided if float(t) in guided_steps else plain
                t, r = batch_of(float(t), x), batch_of(float(r), x)
                return sampler.advance(model, x, t, r, noise, state, left)

            return sampler.walk(
                advance,
                self.interpolant,
                self.start(inputs["noise"]),
                None,
                settings["num_steps"],
            )

        return sample

    def _conditioning(self, settings, use_ema):
        """(the network, its condition as a function of inputs)."""

        def condition(inputs):
            return self.absorb_guidance(
                self._condition_of(inputs),
                settings["guidance_scale"],
                ops.shape(inputs["x"])[0],
            )[0]

        return self.inference_network(use_ema), condition

    def _velocity_function(self, settings, use_ema):
        """The function of an endpoint's inputs to velocities."""
        network, condition = self._conditioning(settings, use_ema)

        def velocity(inputs):
            return self.pred(
                inputs["x"],
                inputs["t"],
                inputs.get("r"),
                condition=condition(inputs),
                network=network,
            )

        return velocity

    def _endpoints(self, settings, decoder, use_ema):
        """{name: Endpoint} of what the file holds beside `from_seed`."""
        sample = self._sampling_function(settings, use_ema)
        others = self._other_inputs()
        shape = (None, *self.sample_shape)
        times = {"t": ((None,), "float32")}
        if "r" in self.network.input:
            times["r"] = ((None,), "float32")
        return {
            "serve": Endpoint(
                lambda inputs: _finished(
                    sample(inputs), decoder, settings["output_range"]
                ),
                {"noise": (shape, "float32"), **others},
                "samples",
                shape if decoder is None else tuple(decoder.output_shape),
            ),
            "velocity": Endpoint(
                self._velocity_function(settings, use_ema),
                {"x": (shape, "float32"), **times, **others},
                "velocity",
                shape,
            ),
        }

    def _sampled(self, inputs, settings, use_ema):
        """What the file must give for a dict of arrays, undecoded."""
        return self.generate(
            noise=inputs["noise"],
            condition=self._condition_of(inputs),
            use_ema=use_ema,
            **{k: v for k, v in settings.items() if k != "output_range"},
        )

    # Writing.

    def _write_export(self, folder, format, settings, decoder, use_ema):
        """Write the file in this process."""
        endpoints = self._endpoints(settings, decoder, use_ema)
        if format == "onnx":
            onnx.write_onnx(folder, endpoints)
            return
        variables = self._export_variables(decoder, use_ema)
        saved_model.write_saved_model(folder, endpoints, variables)

    def _export_variables(self, decoder, use_ema):
        layers = self._export_layers(use_ema)
        if decoder is not None:
            layers = [*layers, decoder]
        return [v for layer in layers for v in layer.variables]

    def _order_export(
        self, temporary, folder, format, settings, decoder, use_ema
    ):
        """Save a preset, and have a TensorFlow process write the file."""
        preset = temporary / "preset"
        self._start_emas()
        self.save_to_preset(preset)
        decoder_file = None
        if decoder is not None:
            decoder_file = str(temporary / "decoder.keras")
            decoder.save(decoder_file)
        worker.order(
            preset=str(preset),
            decoder=decoder_file,
            folder=str(folder),
            format=format,
            settings={
                key: keras.saving.serialize_keras_object(value)
                if key == "sampler"
                else value
                for key, value in settings.items()
            },
            use_ema=use_ema,
        )

    # Comparing.

    def _verify(self, folder, format, settings, decoder, use_ema):
        """{endpoint: largest difference from this backend's own model}."""
        if format == "onnx":
            runs = onnx.load_onnx(folder)
        else:
            runs = saved_model.load_saved_model(folder)
        endpoints = self._endpoints(settings, decoder, use_ema)
        rng = np.random.Generator(np.random.Philox(0))

        def finish(x):
            return _finished(x, decoder, settings["output_range"])

        if decoder is not None:
            finish = compiled(finish, decoder.variables)

        def sampled(inputs):
            return finish(self._sampled(inputs, settings, use_ema))

        def given(name, size):
            return {
                key: self._example(key, (size, *shape[1:]), dtype, rng)
                for key, (shape, dtype) in endpoints[name].inputs.items()
            }

        parity = {"serve": 0.0}
        for size in (7, 1):
            inputs = given("serve", size)
            parity["serve"] = max(
                parity["serve"],
                _difference(runs["serve"](inputs), sampled(inputs)),
            )
        if format == "tf_saved_model":
            inputs = given("velocity", 7)
            velocity = compiled(
                self._velocity_function(settings, use_ema),
                self._export_variables(None, use_ema),
            )
            parity["velocity"] = _difference(
                runs["velocity"](inputs), velocity(inputs)
            )
            inputs = given("serve", 7)
            noise = saved_model.seeded_noise(5, 7, inputs["noise"].shape[1:])
            inputs["noise"] = noise.numpy()
            asked = saved_model.seed_inputs(endpoints["serve"].inputs)
            sizes = {"seed": np.int64(5), "batch_size": np.int32(7)}
            parity["from_seed"] = _difference(
                runs["from_seed"]({k: (inputs | sizes)[k] for k in asked}),
                sampled(inputs),
            )
        for name, difference in parity.items():
            if not difference <= TOLERANCE:
                raise RuntimeError(
                    f"The exported endpoint '{name}' differs from "
                    f"`{self._exported if name != 'velocity' else 'pred'}` by "
                    f"{difference:.2e}, more than {TOLERANCE}; nothing was "
                    "written."
                )
        return parity

    def _example(self, name, shape, dtype, rng):
        """An input to compare with."""
        if name in ("t", "r"):
            ends = self.interpolant.t_noise, self.interpolant.t_data
            return rng.uniform(min(ends), max(ends), shape).astype(dtype)
        if "float" in dtype:
            return rng.standard_normal(shape, dtype="float32").astype(dtype)
        return rng.integers(0, self.null_label or 1, shape, dtype=dtype)

    # Describing.

    def _record(self, format, settings, decoder, use_ema):
        """What signature.json tells of the settings."""
        from keras_flows import __version__

        average = self.emas[0] if use_ema and self.emas else None
        settings = dict(settings)
        sampler = settings.pop("sampler")
        return {
            "format": format,
            "model": type(self).__name__,
            "sample_shape": list(self.sample_shape),
            "settings": {
                "sampler": repr(sampler),
                "time_grid": [
                    float(t)
                    for t in sampler.times(
                        self.interpolant, settings["num_steps"]
                    )
                ],
                **settings,
            },
            "interpolant": repr(self.interpolant),
            "null_label": self.null_label,
            "decoder": None if decoder is None else decoder.name,
            "weights": "trained"
            if average is None
            else {"ema": {"decay": average.decay, "std": average.std}},
            "versions": {
                "keras_flows": __version__,
                "keras": keras.__version__,
                "backend": keras.backend.backend(),
            },
        }


def _spec(tensor):
    return (None, *tensor.shape[1:]), keras.backend.standardize_dtype(
        tensor.dtype
    )


def _finished(x, decoder, output_range):
    """What is served of samples x: decoded, and mapped to the range."""
    if decoder is not None:
        x = decoder(x, training=False)
    if output_range is None:
        return x
    low, high = output_range
    return low + (ops.clip(x, -1.0, 1.0) + 1.0) * (0.5 * (high - low))


def _difference(found, expected):
    """Largest difference, as a share of the largest value if above 1."""
    expected = ops.convert_to_numpy(expected)
    if found.shape != expected.shape:
        raise RuntimeError(
            f"The exported model gives shape {found.shape}, the model itself "
            f"{expected.shape}; nothing was written."
        )
    scale = max(1.0, float(np.abs(expected).max()))
    return float(np.abs(found - expected).max()) / scale


def _check_format(format):
    if format not in FORMATS:
        raise ValueError(
            f"`format` must be one of {sorted(FORMATS)}. Received: {format!r}."
        )
    import importlib.util

    packages, _ = FORMATS[format]
    missing = [p for p in packages if importlib.util.find_spec(p) is None]
    if missing:
        extra = "export" if format == "tf_saved_model" else "onnx"
        raise ImportError(
            f"Format '{format}' needs {' and '.join(missing)}: pip install "
            f"'keras_flows[{extra}]'."
        )


def _writes_itself(format):
    """Whether this process's backend can write the format."""
    backend = keras.backend.backend()
    return backend == "tensorflow" or (
        backend == "jax" and format == "tf_saved_model"
    )


def _target(filepath, version):
    """The folder that the export will be, checked."""
    target = pathlib.Path(filepath)
    if version is not None:
        if isinstance(version, bool) or not (
            isinstance(version, (int, np.integer)) and version >= 0
        ):
            raise ValueError(
                "`version` must be an int of at least 0, or None for no "
                f"folders of versions. Received: {version!r}."
            )
        target = target / str(int(version))
    known = [target / name for _, name in FORMATS.values()]
    if target.exists() and not target.is_dir():
        raise ValueError(
            f"`filepath` must name a folder; {str(target)!r} is a file."
        )
    if (
        target.exists()
        and any(target.iterdir())
        and not any(file.is_file() for file in known)
    ):
        raise ValueError(
            f"`filepath` {str(target)!r} exists and is not an export; it is "
            "left alone. Name a new folder, or a `version` in it."
        )
    return target


def _move(folder, target, temporary):
    """Put `folder` in the place of `target`, whose old content goes."""
    os.chmod(folder, 0o755)
    if target.exists():
        old = temporary / "old"
        os.rename(target, old)
        try:
            os.rename(folder, target)
        except OSError:
            os.rename(old, target)
            raise
    else:
        os.rename(folder, target)


def _output_range(output_range):
    if output_range is None:
        return None
    low, high = (float(edge) for edge in output_range)
    if not low < high:
        raise ValueError(
            "`output_range` must be (low, high) with low < high, such as "
            f"(0, 255). Received: {output_range!r}."
        )
    return low, high


def _check_decoder(decoder, shape):
    if decoder is None:
        return
    if not isinstance(decoder, keras.Model):
        raise ValueError(
            "`decoder` must be a keras.Model of samples, such as the "
            f"`decoder` of a networks.AutoencoderKL. Received: {decoder!r}."
        )
    taken = getattr(decoder, "input_shape", None)
    if taken is not None and (
        not isinstance(taken, tuple)
        or len(taken) != len(shape) + 1
        or any(
            a not in (None, b) for a, b in zip(taken[1:], shape, strict=True)
        )
    ):
        raise ValueError(
            f"`decoder` must take samples, of shape {(None, *shape)}; an "
            "autoencoder has it as its attribute `decoder`. Received one "
            f"that takes {taken}."
        )


def _described(endpoints, format):
    """Inputs and outputs of all endpoints as JSON."""

    def tensors(specs):
        return {
            name: {"shape": list(shape), "dtype": dtype}
            for name, (shape, dtype) in specs.items()
        }

    if format == "onnx":
        endpoints = {"serve": endpoints["serve"]}
    described = {
        name: {
            "inputs": tensors(e.inputs),
            "outputs": tensors({e.output: (e.shape, "float32")}),
        }
        for name, e in endpoints.items()
    }
    if format == "tf_saved_model":
        serve = endpoints["serve"]
        described["from_seed"] = described["serve"] | {
            "inputs": tensors(saved_model.seed_inputs(serve.inputs))
        }
    return described


def _write_signature(folder, record):
    """signature.json, with the SHA-256 of every other file."""
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    record = record | {
        "files": {
            p.relative_to(folder).as_posix(): hashlib.sha256(
                p.read_bytes()
            ).hexdigest()
            for p in files
        }
    }
    text = json.dumps(record, indent=2)
    (folder / SIGNATURE).write_text(text + "\n")
