"""The image recipes' interfaces, by the name of the method."""

import keras

import keras_flows as kf

METHODS = ("sit", "edm", "mean_flow", "repa", "lsd", "lmd", "dmd2")
ONE_STEP = ("mean_flow", "lsd", "lmd")
DISTILLED = ("lmd", "dmd2")


def interface(
    method, network, *, teacher=None, encoder=None, x_sigma=0.5, depth=4,
    start=None, **common,
):  # fmt: skip
    """The model of one method.

    Args:
        method: one of `METHODS`.
        network: function of `two_times` to a new network.
        teacher: the frozen model that `DISTILLED` methods learn from.
        encoder: of images to tokens, for REPA.
        x_sigma: standard deviation of the data, for EDM.
        depth: number of the network's blocks, for REPA.
        start: None, or a model whose weights the network starts from.
        **common: further arguments of the interfaces: `ema`, `seed`.
    """
    if method == "dmd2":
        return kf.DMDInterface(teacher, fake_updates=5)
    network = network(two_times=method in ONE_STEP)
    if start is not None:
        start_from(network, start.network)
    if method == "edm":
        return kf.EDMInterface(network, x_sigma=x_sigma, **common)
    if method == "mean_flow":
        return kf.MeanFlowInterface(network, **common)
    if method == "lsd":
        path = {} if start is None else {"interpolant": start.interpolant}
        return kf.FlowMapInterface(network, "lsd", **path, **common)
    if method == "lmd":
        return kf.FlowMapInterface(
            network,
            "lmd",
            teacher=teacher,
            interpolant=teacher.interpolant,
            **common,
        )
    sit = kf.SiTInterface(network, **common)
    if method == "sit":
        return sit
    return kf.REPAInterface(
        sit,
        feature_dim=encoder.output.shape[-1],
        repa_depth=depth // 2,
        proj_dim=256,
        encoder=encoder,
    )


def start_from(network, other):
    """Give a network the weights of another.

    Where it alone has a second time, the embedding of t - r ends in zeros:
    u(x, t, r) = v(x, t) at first.
    """
    known = {weight.path: weight for weight in other.weights}
    for weight in network.weights:
        if weight.path in known:
            weight.assign(known[weight.path])
        elif weight.path == "interval_embedding/out/kernel":
            weight.assign(keras.ops.zeros(weight.shape))
        elif not weight.path.startswith("interval_embedding"):
            raise ValueError(
                f"--start has no weight {weight.path!r}: weights pass from a "
                "DiT to a DiT of the same sizes."
            )
