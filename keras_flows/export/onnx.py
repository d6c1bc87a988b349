"""An ONNX file from the endpoint `serve`, and the way back."""

import pathlib

import numpy as np

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
        custom_op_handlers={"Erfc": (_erfc, [])},
    )


def _erfc(graph, node, name, args):
    """erfc(x) = 1 - erf(x): of GELU on TensorFlow, unknown to tf2onnx."""
    from tf2onnx import utils

    x, dtype = node.input[0], graph.get_dtype(node.output[0])
    shape = graph.get_shape(node.output[0])
    one = np.ones((), utils.map_onnx_to_numpy_type(dtype))
    one = graph.make_const(f"{name}_one", one)
    erf = graph.make_node("Erf", [x], dtypes=[dtype], shapes=[shape])
    graph.remove_node(node.name)
    return graph.make_node(
        "Sub",
        [one.output[0], erf.output[0]],
        name=name,
        outputs=node.output,
        dtypes=[dtype],
        shapes=[shape],
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
