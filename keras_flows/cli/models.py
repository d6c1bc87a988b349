"""The model that `train` makes of data, and how it is trained."""

import keras
import numpy as np

import keras_flows as kf
from keras_flows.callbacks import ProgressBar
from keras_flows.datasets import robots

INTERFACES = {
    "sit": kf.SiTInterface,
    "edm": kf.EDMInterface,
    "mean_flow": kf.MeanFlowInterface,
}
# Of a transformer: more attend to one another for long.
MOST_TOKENS = 256


def build(data, flags):
    """The model, not compiled yet."""
    keras.utils.set_random_seed(flags.seed)
    if data.kind == "episodes":
        return _policy(data, flags)
    method = flags.method or "lsd"
    two_times = method == "mean_flow" or (
        method not in INTERFACES and kf.objectives.get(method).needs_r
    )
    return _interface(method, _network(data, flags, two_times), flags)


def _interface(method, network, flags):
    options = {"ema": flags.ema, "seed": flags.seed}
    if method in INTERFACES:
        return INTERFACES[method](network, **options)
    return kf.FlowMapInterface(network, method, **options)


def _network(data, flags, two_times):
    shape, classes = data.shape, data.num_classes
    kind = flags.network or ("dit" if data.kind == "images" else "mlp")
    if kind != "mlp" and data.kind != "images":
        raise ValueError(
            f"--network={kind} is of images; these are {data.kind}: mlp."
        )
    if kind == "dit":
        width, depth = flags.width or 192, flags.depth or 6
        return kf.networks.DiT(
            shape,
            patch_size=_patch(shape),
            width=width,
            depth=depth,
            num_heads=max(n for n in (1, 2, 3, 4, 6, 8) if width % n == 0),
            two_times=two_times,
            num_classes=classes,
        )
    if kind == "unet":
        levels = flags.depth or 3
        return kf.networks.SongUNet(
            shape,
            channels=flags.width or 64,
            channel_mult=(1,) + (2,) * (levels - 1),
            num_blocks=2,
            two_times=two_times,
            num_classes=classes,
        )
    return kf.networks.MLP(
        shape,
        width=flags.width or (128 if data.kind == "points" else 512),
        depth=flags.depth or 3,
        two_times=two_times,
        num_classes=classes,
    )


def _patch(shape):
    """The smallest patch, from 2 on where it fits, of few enough tokens."""
    height, width, _ = shape
    sides = [
        side
        for side in range(1, min(height, width) + 1)
        if height % side == width % side == 0
    ]
    few = [
        side
        for side in sides
        if side >= min(2, sides[-1])
        and (height // side) * (width // side) <= MOST_TOKENS
    ]
    return few[0]


def _policy(data, flags):
    if flags.network not in (None, "mlp"):
        raise ValueError(f"--network={flags.network} is of images.")
    first = data.source[0]
    observation, action_dim = first["observation"], first["action"].shape[-1]
    named = isinstance(observation, dict)
    arrays = observation if named else {"observation": observation}
    shapes = {k: (flags.obs_steps, *v.shape[1:]) for k, v in arrays.items()}
    cameras = [k for k, shape in shapes.items() if len(shape) == 4]
    if cameras and not named:
        raise ValueError(
            "An observation that is an image needs a name: save it as "
            "`observation.camera`, say."
        )
    width = flags.width or 256
    kind = kf.networks.ImageEncoder if cameras else kf.networks.MLPEncoder
    encoder = kind(shapes if named else shapes["observation"], width=width)
    method = flags.method or "mip"
    if method in INTERFACES:
        raise ValueError(
            f"--method={method} is of samples; a policy has mip, flow, "
            "regression or a flow map such as lsd."
        )
    network = kf.networks.ChunkMLP(
        action_dim,
        flags.horizon,
        encoder.output_shape[1:],
        kf.objectives.get(method).needs_r,
        width=width,
        depth=flags.depth or 2,
    )
    return kf.policies.Policy(
        _interface(method, network, flags), encoder, act_steps=flags.act_steps
    )


def windows(episodes, flags, **options):
    """`robots.Windows` as the flags have them."""
    return robots.Windows(
        episodes,
        flags.horizon,
        flags.obs_steps,
        flags.act_steps,
        short="pad",
        **options,
    )


def batches(model, data, flags):
    """Batches without end; a policy's normalisers see the episodes first."""
    if data.kind != "episodes":
        return data.batches(flags.batch_size, flags.seed)
    found = windows(
        data.source,
        flags,
        batch_size=flags.batch_size,
        repeat=True,
        seed=flags.seed,
    )
    model.adapt(found)
    return found


def fit(model, found, flags):
    """Train for `--steps` on a cosine that ends at 0; the last loss."""
    rate = keras.optimizers.schedules.CosineDecay(
        0.0,
        max(flags.steps - flags.steps // 20, 1),
        warmup_target=flags.learning_rate,
        warmup_steps=max(flags.steps // 20, 1),
    )
    model.compile(
        keras.optimizers.AdamW(rate, weight_decay=1e-5, clipnorm=1.0),
        # XLA is what makes TensorFlow fast; PyTorch is faster eager here.
        jit_compile=keras.backend.backend() != "torch",
    )
    history = model.fit(
        found,
        steps_per_epoch=flags.steps,
        verbose=0,
        callbacks=[ProgressBar()],
    )
    return float(np.ravel(history.history["loss"])[-1])
