"""An ONNX file from the endpoint `serve`, and the way back."""

import pathlib

MODEL = "model.onnx"
OPSET = 18


def write_onnx(folder, endpoints):
    """Write folder/model.onnx of the endpoint "serve".

    Runs on the TensorFlow backend alone: there tf2onnx converts the graph.
    ONNX has one function a file and no generator of random numbers that
    takes a seed, so the other endpoints have no place in it.
    """
    import tensorflow as tf
    import tf2onnx

    serve = endpoints["serve"]
    spec = {
        name: tf.TensorSpec(shape, dtype, name=name)
        for name, (shape, dtype) in serve.inputs.items()
    }
    graph = tf.function(
        lambda given: {serve.output: serve.function(given)}, autograph=False
    )
    folder = pathlib.Path(folder)
    folder.mkdir()
    tf2onnx.convert.from_function(
        graph,
        input_signature=[spec],
        opset=OPSET,
        output_path=str(folder / MODEL),
    )


def load_onnx(folder):
    """{"serve": function of a dict of arrays to an array} of the file."""
    import onnxruntime

    session = onnxruntime.InferenceSession(
        str(pathlib.Path(folder) / MODEL), providers=["CPUExecutionProvider"]
    )
    names = [i.name for i in session.get_inputs()]

    def run(inputs):
        return session.run(None, {name: inputs[name] for name in names})[0]

    return {"serve": run}
