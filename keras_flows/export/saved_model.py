"""A SavedModel from endpoints, and the way back."""

import keras

from keras_flows._quiet import muted

# One file for every platform: one lowered for CUDA alone does not load on a
# CPU.
PLATFORMS = ("cpu", "cuda", "tpu")


def tensorflow():
    """TensorFlow, imported without its greeting."""
    with muted():
        import tensorflow as tf
    return tf


def write_saved_model(folder, endpoints, variables):
    """Write a SavedModel with the signatures of `endpoints` and `from_seed`.

    Args:
        folder: where to write.
        endpoints: {name: Endpoint}, "serve" with an input "noise" among them.
        variables: the `keras.Variable`s that the endpoints read.
    """
    tf = tensorflow()

    root = tf.Module()
    if keras.backend.backend() == "jax":
        root.weights, traceable = _from_jax(variables)
    else:
        root.weights = [v.value for v in variables]

        def traceable(endpoint):
            return endpoint.function

    signatures = {}
    for name, endpoint in endpoints.items():
        signatures[name] = _graph(
            traceable(endpoint), endpoint.inputs, endpoint.output
        )
    serve = endpoints["serve"]
    sample = signatures["serve"]

    def from_seed(inputs):
        noise = seeded_noise(
            inputs["seed"], _rows(inputs), serve.inputs["noise"][0][1:]
        )
        given = {k: v for k, v in inputs.items() if k in serve.inputs}
        return sample({**given, "noise": noise})[serve.output]

    if has_seed(serve):
        signatures["from_seed"] = _graph(
            from_seed, seed_inputs(serve.inputs), serve.output
        )
    # TensorFlow Serving calls this one where a request names none.
    signatures["serving_default"] = sample
    for name, graph in signatures.items():
        setattr(root, name, graph)
    tf.saved_model.save(root, str(folder), signatures=signatures)


def load_saved_model(folder):
    """{name: function of a dict of arrays to an array} of a SavedModel."""
    tf = tensorflow()

    loaded = tf.saved_model.load(str(folder))

    def runner(signature):
        # A signature dies with the object it came from.
        def run(inputs, keep=loaded):
            tensors = {k: tf.constant(v) for k, v in inputs.items()}
            (output,) = signature(**tensors).values()
            return output.numpy()

        return run

    return {name: runner(s) for name, s in loaded.signatures.items()}


def has_seed(serve):
    """Whether there is a `from_seed`: noise of free sizes must be given."""
    return None not in serve.inputs["noise"][0][1:]


def seed_inputs(inputs):
    """The inputs of `from_seed` beside those of `serve`.

    The batch is that of the other inputs, and a number where there is none.
    """
    others = {k: v for k, v in inputs.items() if k != "noise"}
    seed = {"seed": ((), "int64")}
    return {**seed, **(others or {"batch_size": ((), "int32")})}


def seeded_noise(seed, rows, shape):
    """Standard normal float32 (rows, *shape), a function of the seed.

    The algorithm is named, since the default differs between devices.
    """
    import tensorflow as tf

    seed = tf.cast(seed, tf.int64)
    return tf.random.stateless_normal(
        tf.concat([[rows], shape], axis=0),
        tf.stack([seed, tf.zeros_like(seed)]),
        alg="philox",
    )


def _rows(inputs):
    import tensorflow as tf

    if "batch_size" in inputs:
        return inputs["batch_size"]
    given = next(v for k, v in inputs.items() if k != "seed")
    return tf.shape(given)[0]


def _graph(function, inputs, output):
    """A `tf.function` of a dict, whose output has a name."""
    import tensorflow as tf

    spec = {
        name: tf.TensorSpec(shape, dtype, name=name)
        for name, (shape, dtype) in inputs.items()
    }
    return tf.function(
        lambda given: {output: function(given)},
        input_signature=[spec],
        autograph=False,
    )


def _symbols(name, shape):
    """A shape as JAX reads it, with a name for each free size."""
    sides = [
        f"{name}_{axis}" if side is None else str(side)
        for axis, side in enumerate(shape)
    ]
    return "(" + ", ".join(["batch", *sides[1:]]) + ")"


def _from_jax(variables):
    """(tf.Variables, endpoint -> TensorFlow function that reads them).

    Keras's `ExportArchive` would assign all variables anew in every call
    where, like averages, they are not trainable.
    """
    import tensorflow as tf
    from jax.experimental import jax2tf

    weights = [
        tf.Variable(keras.ops.convert_to_numpy(v.value), trainable=False)
        for v in variables
    ]

    def traceable(endpoint):
        def stateless(values, inputs):
            mapping = list(zip(variables, values, strict=True))
            with keras.StatelessScope(state_mapping=mapping):
                return endpoint.function(inputs)

        shapes = {
            name: _symbols(name, shape)
            for name, (shape, _) in endpoint.inputs.items()
        }
        converted = jax2tf.convert(
            stateless,
            polymorphic_shapes=[None, shapes],
            native_serialization_platforms=PLATFORMS,
            with_gradient=False,
        )
        return lambda inputs: converted(list(weights), inputs)

    return weights, traceable
