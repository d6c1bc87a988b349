"""`model.export`: noise (and condition) in, sample out, weights inside."""

import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

import keras
import numpy as np
from keras import ops
from keras import tree

TOLERANCE = 1e-4


class Exportable:
    """Mixin with `export`; needs `generate` and its parts."""

    def export(
        self,
        filepath,
        format="tf_saved_model",
        *,
        num_steps=None,
        sampler=None,
        guidance_scale=1.0,
        guidance_channels=None,
        use_ema=True,
        verbose=True,
    ):
        """Export the sampler as a TensorFlow SavedModel.

        The endpoint `serve` maps a dict of "noise" (B, ...), standard normal,
        and, for a conditional model, "condition", to samples (B, ...), with
        any batch size. Loading it needs TensorFlow alone, not Keras. After
        the export the file is loaded and compared with `generate`; a
        difference above 1e-4 is an error and leaves nothing behind. On the
        PyTorch backend a TensorFlow subprocess does the work.

        Args:
            filepath: folder to write; its parent must be writable.
            format: "tf_saved_model".
            num_steps: see `generate`; fixed in the export.
            sampler: a sampler without noise of its own; see `generate`.
            guidance_scale: see `generate`; fixed in the export.
            guidance_channels: see `generate`; fixed in the export.
            use_ema: whether to export the first EMA's weights.
            verbose: whether to print a line.

        Raises:
            ValueError: on an argument that does not fit.
            ImportError: if TensorFlow is not installed.
        """
        if format != "tf_saved_model":
            raise ValueError(
                f"`format` must be 'tf_saved_model'. Received: {format!r}."
            )
        settings = self._export_settings(
            num_steps, sampler, guidance_scale, guidance_channels
        )
        self._export(filepath, settings, use_ema, verbose)

    def _export(self, filepath, settings, use_ema, verbose):
        """Write, compare, then move into place."""
        target = pathlib.Path(filepath)
        target.parent.mkdir(parents=True, exist_ok=True)
        _require_tensorflow()
        temporary = pathlib.Path(
            tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent)
        )
        try:
            folder = temporary / "saved_model"
            if keras.backend.backend() == "torch":
                self._export_by_tensorflow(temporary, folder, settings, use_ema)
            else:
                self._write_saved_model(folder, settings, use_ema)
            difference = self._verify(folder, settings, use_ema)
            if target.exists():
                shutil.rmtree(target)
            os.rename(folder, target)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        if verbose:
            print(
                f"Exported to {target}: {settings['num_steps']} steps, "
                f"largest difference from {self._exported} {difference:.1e}."
            )

    def _export_settings(
        self, num_steps, sampler, guidance_scale, guidance_channels
    ):
        from keras_flows import samplers

        sampler = (
            self.default_sampler if sampler is None else samplers.get(sampler)
        )
        if sampler.stochastic:
            raise ValueError(
                "`sampler` draws noise in every step, which the exported "
                f"signature has no input for. Received: {sampler}; use an "
                "ODE sampler or a flow-map jump."
            )
        num_steps = self.default_num_steps if num_steps is None else num_steps
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
            "guidance_channels": self._channels(guidance_channels),
        }

    def _condition_input(self):
        return self.network.input.get("condition")

    def _sampling_function(self, settings, use_ema):
        """serve(inputs) -> samples, for tracing."""
        sampler = settings["sampler"]
        network = self.inference_network(use_ema)

        def serve(inputs):
            condition, scale = self.absorb_guidance(
                inputs.get("condition"),
                settings["guidance_scale"],
                ops.shape(inputs["noise"])[0],
            )
            negative = self._negative(condition, None, scale, None)
            bound = self.predictor(
                network,
                condition,
                negative,
                scale,
                channels=settings["guidance_channels"],
            )
            return sampler.unrolled(
                bound, self.start(inputs["noise"]), settings["num_steps"]
            )

        return serve

    # What is exported; a policy has other inputs.

    _exported = "generate"

    def _signature(self):
        """{name: (shape with the batch, dtype)} of the endpoint's inputs."""
        signature = {"noise": ((None, *self.sample_shape), "float32")}
        condition = self._condition_input()
        if condition is not None:
            shape = (None, *condition.shape[1:])
            signature["condition"] = (shape, condition.dtype)
        return signature

    def _export_layers(self, use_ema):
        """The layers whose weights the file holds."""
        return [self.inference_network(use_ema)]

    def _sampled(self, inputs, settings, use_ema):
        """What the file must give for a dict of arrays."""
        return self.generate(
            noise=inputs["noise"],
            condition=inputs.get("condition"),
            use_ema=use_ema,
            **settings,
        )

    def _write_saved_model(self, folder, settings, use_ema):
        signature = {
            name: keras.InputSpec(shape=shape, dtype=dtype, name=name)
            for name, (shape, dtype) in self._signature().items()
        }
        archive = keras.export.ExportArchive()
        for layer in self._export_layers(use_ema):
            archive.track(layer)
        options = {}
        if keras.backend.backend() == "jax":
            # One file for every platform; a file lowered for CUDA alone does
            # not load on a CPU.
            options["jax2tf_kwargs"] = {
                "native_serialization_platforms": ("cpu", "cuda", "tpu"),
                "with_gradient": False,
            }
        archive.add_endpoint(
            "serve",
            self._sampling_function(settings, use_ema),
            input_signature=[signature],
            **options,
        )
        archive.write_out(str(folder), verbose=False)

    def _export_by_tensorflow(self, temporary, folder, settings, use_ema):
        """Save a preset, and export it in a TensorFlow process."""
        preset = temporary / "preset"
        self._start_emas()
        self.save_to_preset(preset)
        order = {
            "preset": str(preset),
            "folder": str(folder),
            "settings": {
                key: keras.saving.serialize_keras_object(value)
                for key, value in settings.items()
            },
            "use_ema": use_ema,
        }
        result = subprocess.run(
            [sys.executable, "-m", "keras_flows.export.worker"],
            input=json.dumps(order),
            env={
                **os.environ,
                "KERAS_BACKEND": "tensorflow",
                "CUDA_VISIBLE_DEVICES": "",
            },
            capture_output=True,
            text=True,
        )
        if result.returncode:
            raise RuntimeError(
                "The TensorFlow process that exports for PyTorch failed. A "
                "network of your own must be importable there, in a module "
                "that registers it. Its last words:\n" + result.stderr[-2000:]
            )

    def _verify(self, folder, settings, use_ema):
        """Largest difference between the file and `generate`."""
        import tensorflow as tf

        serve = tf.saved_model.load(str(folder)).signatures["serve"]
        rng = np.random.Generator(np.random.Philox(0))
        worst = 0.0
        for size in (3, 1):
            inputs = {
                name: rng.standard_normal((size, *shape[1:]), dtype="float32")
                if "float" in dtype
                else np.zeros((size, *shape[1:]), dtype=dtype)
                for name, (shape, dtype) in self._signature().items()
            }
            served = tree.flatten(
                serve(**{k: tf.constant(v) for k, v in inputs.items()})
            )[0].numpy()
            sampled = ops.convert_to_numpy(
                self._sampled(inputs, settings, use_ema)
            )
            worst = max(worst, float(np.abs(served - sampled).max()))
        if not worst <= TOLERANCE:
            raise RuntimeError(
                f"The exported model differs from `{self._exported}` by "
                f"{worst:.2e}, more than {TOLERANCE}; nothing was written."
            )
        return worst


def _require_tensorflow():
    import importlib.util

    if importlib.util.find_spec("tensorflow") is None:
        raise ImportError(
            "A SavedModel needs TensorFlow to write: "
            "pip install 'keras_flows[export]'."
        )
