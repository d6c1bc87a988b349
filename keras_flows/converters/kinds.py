"""The kinds of checkpoints, and the models they become."""

import functools
import re

import keras

from keras_flows.converters import ddt
from keras_flows.converters import dit
from keras_flows.converters import edm
from keras_flows.converters import policy
from keras_flows.converters import vae
from keras_flows.converters.assign import values_of
from keras_flows.converters.direction import reverse
from keras_flows.converters.direction import reversed_call
from keras_flows.converters.direction import turn
from keras_flows.converters.sizes import ENCODERS
from keras_flows.converters.sizes import count
from keras_flows.converters.sizes import dims
from keras_flows.converters.sizes import heads_of
from keras_flows.converters.sizes import image_shape_of
from keras_flows.converters.sizes import policy_sizes
from keras_flows.converters.sizes import resolved
from keras_flows.converters.sizes import size_in
from keras_flows.converters.sizes import unknown
from keras_flows.interfaces import DiscreteInterface
from keras_flows.interfaces import EDMInterface
from keras_flows.interfaces import MeanFlowInterface
from keras_flows.interfaces import SiTInterface
from keras_flows.networks import DDT
from keras_flows.networks import AutoencoderKL
from keras_flows.networks import DhariwalUNet
from keras_flows.networks import DiT
from keras_flows.networks import LightningDiT
from keras_flows.networks import SongUNet
from keras_flows.ops.scalars import number
from keras_flows.presets import Converter
from keras_flows.presets import register_converter
from keras_flows.presets.convert import Owned


def _transformer(cls, state, config, options):
    """A `DiT` or `LightningDiT` of the sizes of a state, with its weights."""
    width, channels, patch, _ = dims(state, "x_embedder.proj.weight", 4)
    outputs = dims(state, "final_layer.linear.weight")[0]
    labels = dims(state, "y_embedder.embedding_table.weight")[0]
    norm = "blocks.0.attn.q_norm.weight"
    inferred = {
        "image_shape": image_shape_of(state, config, patch, channels),
        "patch_size": patch,
        "width": width,
        "depth": count(state, r"blocks\.(\d+)\."),
        "num_heads": size_in(config, "num_attention_heads")
        or heads_of(width, state, norm),
        "two_times": "h_embedder.mlp.0.weight" in state,
        # The last is the null label.
        "num_classes": labels - 1,
        "learn_sigma": outputs == 2 * patch**2 * channels,
    }
    if cls is DiT:
        hidden = dims(state, "blocks.0.mlp.fc1.weight")[0]
        inferred["mlp_ratio"] = hidden / width
    else:
        rows = dims(state, "blocks.0.adaLN_modulation.1.weight")[0]
        inferred |= {"qk_norm": norm in state, "shift": rows == 6 * width}
    network = cls(**resolved(inferred, options))
    dit.convert(state, network)
    return network


def _turned(network):
    turn(network)
    return network


def _flow(network, law="uniform"):
    return SiTInterface(network, law, t_shift_base=None, ema=None)


def _sit(state, config, options):
    return _flow(_turned(_transformer(DiT, state, config, options)))


def _repa(state, config, options):
    return _flow(_transformer(DiT, state, config, options))


def _lightning(state, config, options):
    network = _transformer(LightningDiT, state, config, options)
    return _flow(_turned(network), "logitnormal")


def _dit(state, config, options):
    if "proj_out_2.weight" in state:
        state = Owned(dit.diffusers_state(state))
    network = _transformer(DiT, state, config, options)
    arguments = network.get_config()
    if not arguments["learn_sigma"]:
        return DiscreteInterface(network, ema=None)
    # Our DiT leaves the variances out; DDPM's sampler wants them.
    both = keras.Model(
        network.input, network.get_layer("unpatchify").output, name="dit"
    )
    return DiscreteInterface(
        both,
        learn_sigma=True,
        null_label=arguments["num_classes"],
        ema=None,
    )


def _mean_flow(state, config, options):
    if any(name.endswith(".kernel") for name in state):
        flax, state = state, Owned(dit.flax_state(state))
        flax.clear()
    network = _transformer(DiT, state, config, options)
    return MeanFlowInterface(network, t_shift_base=None, ema=None)


def _ddt(architecture, state, config, options):
    rae = architecture == "rae"
    # RAE embeds patches by a convolution.
    ndim = 4 if rae else 2
    shape = dims(state, "x_embedder.proj.weight", ndim)
    encoder_shape = dims(state, "s_embedder.proj.weight", ndim)
    width, out_width = encoder_shape[0], shape[0]
    labels = dims(state, "y_embedder.embedding_table.weight")[0]
    norm = "blocks.0.attn.q_norm.weight"
    depth = count(state, r"blocks\.(\d+)\.")
    widths = [
        dims(state, f"blocks.{i}.attn.proj.weight")[0] for i in range(depth)
    ]
    if rae:
        patch, channels = shape[-1], shape[1]
    else:
        patch = options.get("patch_size", 2)
        channels = shape[1] // patch**2
    # The halves have two widths, or are a published size.
    encoder = widths.count(width) if out_width != width else None
    encoder = options.get(
        "encoder_depth", encoder or ENCODERS.get((depth, width))
    )
    if encoder is None:
        unknown("encoder_depth")
    inferred = {
        "image_shape": image_shape_of(state, config, patch, channels),
        "patch_size": patch,
        "width": width,
        "encoder_depth": encoder,
        "decoder_depth": depth - encoder,
        "num_heads": heads_of(width, state, norm),
        "qk_norm": norm in state,
        "architecture": architecture,
        "num_classes": labels - 1,
    }
    if out_width != width:
        last = f"blocks.{depth - 1}.attn.q_norm.weight"
        # RAE's wide decoder has 16 heads at every width.
        heads = 16 if out_width == 2048 else heads_of(out_width, state, last)
        inferred |= {"decoder_dim": out_width, "decoder_heads": heads}
    network = DDT(**resolved(inferred, options))
    ddt.convert(state, network)
    if rae:
        return SiTInterface(network, "uniform", ema=None)
    return _flow(_turned(network), "logitnormal")


def _edm(state, config, options):
    sides = {
        int(match[1])
        for name in state
        if (match := re.match(r"enc\.(\d+)x\d+_", name))
    }
    if not sides:
        dims(state, "enc.<side>x<side>_conv.weight")
    sides = sorted(sides, reverse=True)
    side = sides[0]
    size_in({"side": side}, "side")
    channels, colours = dims(state, f"enc.{side}x{side}_conv.weight", 4)[:2]
    inferred = {
        "image_shape": (side, side, colours),
        "channels": channels,
        "channel_mult": tuple(
            dims(state, f"enc.{s}x{s}_block0.conv0.weight", 4)[0] // channels
            for s in sides
        ),
        "num_blocks": count(state, rf"enc\.{side}x{side}_block(\d+)\."),
        "attn_resolutions": tuple(
            s for s in sides if f"enc.{s}x{s}_block0.qkv.weight" in state
        ),
    }
    if "map_label.weight" in state:
        inferred["num_classes"] = dims(state, "map_label.weight", 2)[1]
    cls = DhariwalUNet
    if f"dec.{side}x{side}_aux_conv.weight" in state:
        cls = SongUNet
        ncsn = "map_noise.freqs" in state
        inferred["architecture"] = "ncsn++" if ncsn else "ddpm++"
    network = cls(**resolved(inferred, options))
    edm.convert(state, network)
    return EDMInterface(network, ema=None)


def _vae(state, config, options):
    levels = count(state, r"encoder\.down_blocks\.(\d+)\.")
    side = size_in(config, "sample_size", 256)
    colours = dims(state, "encoder.conv_in.weight", 4)[1]
    inferred = {
        "image_shape": (side, side, colours),
        "latent_channels": dims(state, "decoder.conv_in.weight", 4)[1],
        "block_out_channels": tuple(
            dims(state, f"encoder.down_blocks.{i}.resnets.0.conv1.weight", 4)[0]
            for i in range(levels)
        ),
        "layers_per_block": count(
            state, r"encoder\.down_blocks\.0\.resnets\.(\d+)\."
        ),
        "norm_groups": size_in(config, "norm_num_groups", 32),
    }
    for key in ("scaling_factor", "shift_factor"):
        if config.get(key) is not None:
            inferred[key] = number(f"config.json: {key}", config[key])
    network = AutoencoderKL(**resolved(inferred, options))
    vae.convert(state, network)
    return network


def _policy(state, config, options):
    cls, sizes = policy_sizes(state)
    needed = {
        key: functools.partial(unknown, key)
        for key in ("action_dim", "horizon", "condition_shape")
    }
    inferred = needed | {"two_times": True} | sizes
    network = cls(**resolved(inferred, options))
    policy.convert(state, network)
    return network


def _network(model):
    return getattr(model, "network", model)


def _called(call, inputs):
    inputs = {k: keras.ops.convert_to_tensor(v) for k, v in inputs.items()}
    return keras.ops.convert_to_numpy(call(inputs))


def _output(model, inputs):
    return _called(_network(model), inputs)


def _turned_output(model, inputs):
    return _called(reversed_call(_network(model)), inputs)


def _image_output(model, inputs):
    return keras.ops.convert_to_numpy(model(inputs["x"]))


def _torch_sit(model):
    network = _network(model)
    return dit.torch_state(network, reverse(network))


def _torch_dit(model):
    network = _network(model)
    return dit.torch_state(network, values_of(network))


for kind, converter in {
    "sit": Converter("SiT (willisma/SiT)", _sit, _turned_output, _torch_sit),
    "dit": Converter(
        "DiT (facebookresearch/DiT, or diffusers' DiT-XL-2-256/transformer)",
        _dit,
        _output,
        _torch_dit,
    ),
    # The projectors align features in training; sampling does not use them.
    "repa": Converter(
        "SiT trained by REPA (sihyun-yu/REPA), without its projectors",
        _repa,
        _output,
        unused=("projectors.",),
    ),
    "lightning_dit": Converter(
        "LightningDiT (hustvl/LightningDiT)", _lightning, _turned_output
    ),
    "ddt": Converter(
        "DDT (MCG-NJU/DDT)",
        functools.partial(_ddt, "ddt"),
        _turned_output,
    ),
    "rae": Converter(
        "RAE's DDT (bytetriper/RAE)",
        functools.partial(_ddt, "rae"),
        _output,
    ),
    "meanflow": Converter("MeanFlow (Gsunshine/meanflow)", _mean_flow, _output),
    "edm": Converter("EDM (NVlabs/edm), a state dict", _edm, _output),
    "vae": Converter(
        "diffusers' AutoencoderKL, such as Stable Diffusion's VAE",
        _vae,
        _image_output,
    ),
    "policy": Converter(
        "policy networks of Much Ado About Noising (MIP), flow map",
        _policy,
        _output,
    ),
}.items():
    register_converter(kind, converter)
