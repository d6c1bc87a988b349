"""Metrics, datasets, callbacks, presets, serving and training."""

import dataclasses

from contract.calls import Target
from contract.surface.kinds import AT_LEAST_1
from contract.surface.kinds import FLAG
from contract.surface.kinds import NAME
from contract.surface.kinds import PATH_TO_WRITE
from contract.surface.kinds import SEED
from contract.surface.kinds import instance
from contract.surface.kinds import positive
from contract.values import array
from contract.values import choice
from contract.values import integer
from contract.values import listed
from contract.values import real

BOARD = "kf.datasets.Checkerboard()"
DATA = instance(
    BOARD, "kf.datasets.Rings()", also=("points()", "mlp()", "Records()")
)
WORD = listed(either=("'no_such'",), unclear=("'a word'", "'0.5'", "'2'"))
FEATURES = array((20, 2), "float64")
POINTS = array((20, 2), "float64", loose=True)
PATH = instance(
    also=(
        "folder", "folder + '/no_such'", "pathlib.Path('/no/such')",
        "'a word'", "'0.5'", "'2'", "None",
    )
)  # fmt: skip
METRICS = [
    Target(
        "kf.metrics.HistogramKL",
        {"data": (BOARD, DATA), "num_reference": ("50", integer(2))},
        {
            "bins": instance("20", "60", also=("1", "2", "3")),
            "extent": positive(most=4.0),
            "reference": choice("samples", "density"),
            "eps": real(0.0, 0.001), "seed": SEED,
        },
        "made(points())", weight=3,
    ),
    *(
        Target(
            f"kf.metrics.HistogramKL({BOARD}, num_reference=50){method}",
            kinds,
            optional,
            check=None if method == ".report" else "finite",
        )
        for method, kinds, optional in (
            ("", {"samples": ("points()", FEATURES)}, {}),
            (".report", {"samples": ("points()", FEATURES)}, {}),
            (".floor", {"num_samples": ("5", AT_LEAST_1)}, {"seed": SEED}),
        )
    ),
    Target("kf.metrics.InceptionScore", {},
           {"splits": integer(1), "seed": SEED}, "made(points())"),
    Target("kf.metrics.InceptionScore(splits=2)",
           {"logits": ("points()", POINTS)}),
    Target(
        "kf.metrics.kernel_distance",
        {
            "real": ("points()", FEATURES), "fake": ("points()", FEATURES),
            "subset_size": ("5", integer(2, 20, most=20)),
            "num_subsets": ("2", AT_LEAST_1),
        },
        {"seed": SEED}, weight=2,
    ),
    Target(
        "kf.metrics.precision_recall",
        {"real": ("points()", FEATURES), "fake": ("points()", FEATURES)},
        {"k": integer(1, 19, most=19), "batch_size": AT_LEAST_1}, weight=2,
    ),
    Target("kf.metrics.frechet_distance", {
        "a": ("statistics()", instance("statistics()", also=("points()",))),
        "b": ("statistics()", instance(
            "statistics()", also=("kf.metrics.GaussianStatistics(2)",
                                  "kf.metrics.GaussianStatistics(3)"))),
    }),
    Target("kf.metrics.GaussianStatistics", {"dim": ("2", AT_LEAST_1)},
           use="made.update(points(20, made.dim)).mean"),
    Target("statistics().update", {"features": ("points()", FEATURES)},
           use="made.mean"),
    Target("statistics().merge", {
        "other": ("statistics()", instance(
            "statistics()", also=("kf.metrics.GaussianStatistics(3)",)))},
        use="made.mean"),
    Target("statistics().save", {"path": ("folder + '/a.npz'", PATH_TO_WRITE)},
           check=None),
    Target("kf.metrics.GaussianStatistics.load",
           {"path": ("folder", PATH)}, check=None),
    *(
        Target(f"kf.metrics.{name}", {"images": (text, kind)}, weight=2)
        for name, text, kind in (
            ("to_uint8", "images()", array((3, 8, 8, 3), loose=True)),
            ("to_float", "filled((3, 8, 8, 3), 'uint8')",
             array((3, 8, 8, 3), "uint8", integers=True, loose=True)),
        )
    ),
    Target(
        "kf.metrics.save_adm_npz",
        {
            "path": ("folder + '/a.npz'", PATH_TO_WRITE),
            "samples": ("images()", array((3, 8, 8, 3))),
        },
        {"labels": listed(
            ("None", "[0, 1, 2]", "np.arange(3)"),
            ("[0, 1]", "['a', 'b', 'c']", "[0.5, 1, 2]"))},
        check=None,
    ),
    Target("kf.metrics.load_adm_npz", {"path": ("folder", PATH)}, check=None),
    Target(
        "kf.metrics.ClassifierFeatures",
        {"model": ("feature_extractor()", instance(
            "feature_extractor()",
            also=("classifier()", "mlp()", "sit", "keras.Model")))},
        {
            "layer": instance("None", also=("'no_such'", "0", "1", "-1")),
            "name": NAME, "from_logits": FLAG, "batch_size": AT_LEAST_1,
        },
        "made(images())",
    ),
    Target("kf.metrics.ClassifierFeatures(feature_extractor())",
           {"images": ("images()", array((3, 8, 8, 3)))}),
    Target(
        "kf.metrics.FrechetDistance",
        {
            "extractor": (
                "kf.metrics.ClassifierFeatures(feature_extractor())",
                instance(also=("feature_extractor()", "'no_such'"))),
            "reference": ("images(6)", array((6, 8, 8, 3))),
        },
        {"name": NAME, "batch_size": integer(1, none=True)},
        "made(images(5))",
    ),
    Target("kf.metrics.DINOv2Features", {}, {
        "preset": instance(also=("'no_such_preset'",)),
        "size": AT_LEAST_1, "grey_to_rgb": FLAG, "batch_size": AT_LEAST_1,
    }, check=None, slow=True),
    Target("kf.metrics.InceptionV3Features", {
        "weights": ("folder + '/no_such.pth'", PATH)}, {
        "sha256": instance("None", also=("'00'",)),
        "grey_to_rgb": FLAG, "batch_size": AT_LEAST_1,
    }, check=None, slow=True, wanting=("weights",)),
]  # fmt: skip
SAMPLE = {"num": ("3", integer(0))}
BATCHING = {
    "shuffle": FLAG, "repeat": FLAG, "drop_remainder": FLAG,
    "seed": integer(0, most=2**31), "workers": AT_LEAST_1,
    "shard": listed(
        ("(0, 1)", "(1, 2)"),
        ("(2, 2)", "(-1, 2)", "(0, 0)", "('a', 2)", "(0.5, 2)", "(0, 1, 2)"),
        ("[0, 1]",), unclear=("[1, 2]",)),
    "start": integer(0, most=0),
}  # fmt: skip
DATASETS = [
    Target("kf.datasets.Checkerboard", {}, {
        "extent": positive(), "cells": instance("2", "4", "6", also=(
            "np.int64(2)", "2.0", "np.float64(2.0)", "np.array(2)")),
    }, "made.sample(3, 0), made.density(points())"),
    Target("kf.datasets.Rings", {}, {
        "radii": listed(
            ("(0.75, 1.75)", "[1.0]", "(1, 2)"),
            ("(0.0,)", "(float('nan'),)", "('a',)", "(-1.0,)",
             "(float('inf'),)"), unclear=("[1, 2]", "np.array([1])")),
        "width": real(0.0, 0.1),
    }, "made.sample(3, 0), made.density(points())"),
    *(
        Target(f"kf.datasets.{name}.sample", SAMPLE, {"seed": SEED})
        for name in ("Checkerboard()", "Rings()", "Scenes()", "Rows(points())")
    ),
    *(
        Target(f"kf.datasets.{name}().density",
               {"points": ("points()", POINTS)})
        for name in ("Checkerboard", "Rings")
    ),
    Target("kf.datasets.Endless", {
        "data": (BOARD, DATA), "batch_size": ("2", AT_LEAST_1)},
        {"seed": integer(0, most=2**31), "labelled": FLAG},
        "batches(made)", weight=2),
    Target("kf.datasets.digits", {"split": (
        "'test'", choice("train", "validation", "test"))}),
    Target("kf.datasets.mnist", {"split": ("'test'", choice("train", "test"))},
           # True would download it.
           {"full": dataclasses.replace(FLAG, drawn=None, pool=False,
                                        values=("False", "'no'", "'False'"))}),
    Target("kf.datasets.Scenes", {}, {
        "size": instance("32", "64", also=("128", "np.int64(32)", "48"))},
        "made.sample(3, 0)"),
    Target("kf.datasets.Batches", {
        "source": ("Records()", instance(
            "Records()", also=("points()", "classifier()"))),
        "batch_size": ("2", AT_LEAST_1),
        "transform": ("keep", instance("keep")),
    }, BATCHING, "batches(made)", weight=4),
    Target("kf.datasets.Batches(Records(), 2, keep).restore", {
        "state": (
            "kf.datasets.Batches(Records(), 2, keep).state()",
            instance(also=("{}", "{'position': 'a'}")))}, check=None),
    Target("kf.datasets.center_crop", {
        "image": ("filled((8, 6, 3), 'uint8')",
                  array((8, 6, 3), "uint8", integers=True)),
        "size": ("4", AT_LEAST_1)}),
    *(
        Target(f"kf.datasets.{name}", {
            first: ("folder", PATH), "batch_size": ("2", AT_LEAST_1)}, {
            "image_size": integer(1, none=True), "flip": FLAG, "rgb": FLAG,
            **BATCHING}, check=None, slow=True, wanting=("path",))
        for name, first in (
            ("from_edm_zip", "path"), ("from_image_folder", "path"))
    ),
    Target("kf.datasets.from_tfds", {
        "name": ("'no_such'", WORD), "split": ("'train'", None),
        "batch_size": ("2", None)}, {"data_dir": PATH}, check=None,
        slow=True, wanting=("name",)),
    Target("kf.datasets.TfdsSource", {
        "name": ("'no_such'", WORD), "split": ("'train'", WORD),
    }, {"data_dir": PATH}, check=None, slow=True, wanting=("name",)),
    Target("kf.datasets.Latents", {
        "path": ("folder", PATH), "batch_size": ("2", AT_LEAST_1)},
        {"flip": FLAG, "checksums": FLAG}, check=None, slow=True,
        wanting=("path",)),
    *(
        Target(f"kf.datasets.{name}", {"path": ("folder", PATH)}, check=None)
        for name in ("EdmSource", "FolderSource")
    ),
    Target("kf.datasets.describe_autoencoder", {
        "autoencoder": ("feature_extractor()", instance(
            "feature_extractor()", also=("sit",)))}, {
        "name": NAME, "scaling_factor": positive(), "shift_factor": real()},
        check=None),
    Target("kf.datasets.prepare_latents", {
        "source": ("Records()", instance()),
        "autoencoder": ("feature_extractor()", instance(also=("sit",))),
        "out": ("folder + '/out'", PATH_TO_WRITE),
    }, {
        "batch_size": AT_LEAST_1, "shards": AT_LEAST_1, "seed": SEED,
        "dtype": choice("float32", "float16"), "scaling_factor": positive(),
        "flip": FLAG, "rgb": FLAG,
    }, check=None, slow=True, wanting=("source", "shards")),
]  # fmt: skip


def turns(shape):
    """Numbers of which some are no rotations, and refused rightly."""
    kind = array(shape, loose=True)
    return dataclasses.replace(
        kind, verdict=kind.verdict | {f"filled({shape}, 'float32')": "either"}
    )


EPISODES = instance(
    also=(
        "small.episodes()", "small.dict_episodes()", "[{'a': 1}]",
        "small.windows()", "[{}]",
    )
)  # fmt: skip
ROBOTS = [
    Target("robots.Windows", {
        "episodes": ("small.episodes()", EPISODES),
        "horizon": ("6", integer(5, 8, most=8)),
        "act_steps": ("2", integer(1, 3, most=3)),
        "batch_size": ("2", AT_LEAST_1),
    }, {
        "obs_steps": integer(1, 3, most=3), "mask": FLAG,
        "transform": instance("None", "lambda a, o: a", also=("keep",)),
        "short": choice("error", "pad", "drop"), "shuffle": FLAG,
        "repeat": FLAG, "drop_remainder": FLAG,
        "seed": integer(0, most=2**31),
    }, "batches(made)", weight=4),
    Target("robots.check_episodes", {
        "episodes": ("small.episodes()", EPISODES)}, check=None),
    Target("robots.concatenate", {
        "episodes": ("small.dict_episodes()", EPISODES)}, {
        "keys": listed(
            ("None", "['arm']", "['arm', 'object']"),
            ("['no_such']", "'no_such'"), ("'arm'", "('arm',)"))},
        check=None),
    Target("robots.select_keys", {
        "episodes": ("small.dict_episodes()", EPISODES),
        "keys": ("['arm']", listed(
            ("['arm']", "['arm', 'object']", "'arm'"),
            ("['no_such']", "'no_such'"), ("('arm',)", "None"),
            unclear=("None",)))}, check=None),
    Target("robots.split_episodes", {
        "episodes": ("small.episodes()", EPISODES),
        "held_out": ("0.5", real(0.0, 1.0))}, {"seed": SEED},
        check=None),
    Target("robots.as_floats", {
        "array": ("filled((3, 2))", array((3, 2), loose=True))}),
    *(
        Target(f"robots.{name}", {argument: (
            f"rotations({shape})", turns(shape))},
            {"order": choice("columns", "rows")} if ordered else {},
            aliases={"actions": "rotation"})
        for name, argument, shape, ordered in (
            ("axis_angle_to_matrix", "axis_angle", (2, 3), False),
            ("matrix_to_axis_angle", "matrix", (2, 3, 3), False),
            ("matrix_to_quaternion", "matrix", (2, 3, 3), False),
            ("matrix_to_rotation_6d", "matrix", (2, 3, 3), True),
            ("quaternion_to_matrix", "quaternion", (2, 4), False),
            ("quaternion_to_rotation_6d", "quaternion", (2, 4), True),
            ("rotation_6d_to_matrix", "rotation", (2, 6), True),
            ("to_rotation_6d", "actions", (2, 7), True),
            ("from_rotation_6d", "actions", (2, 10), True),
        )
    ),
    Target("robots.poses", {"observation": (
        "{'robot0_eef_pos': filled((2, 3)), "
        "'robot0_eef_quat': filled((2, 4)) + 0.1}",
        instance(also=("{'robot0_eef_pos': filled((2, 3))}",)))}, {
        "robots": listed(("None", "['robot0']"), ("['no_such']",)),
        "order": choice("columns", "rows")}),
    Target("robots.ActionRepresentation", {}, {
        "arms": AT_LEAST_1, "rotation": FLAG,
        "position": instance("3", "np.int64(3)", also=("1", "2")),
        "gripper": integer(0), "order": choice("columns", "rows")},
        check=None),
    Target("robots.action_representation", {
        "identifier": ("'relative'", choice(
            "absolute", "relative", "delta"))}, {
        "arms": AT_LEAST_1, "gripper": integer(0)}, check=None),
    *(
        Target(f"robots.{name}", {first: ("folder", PATH)}, {
            "keys": instance("None", also=("'a'", "['a']")), **own},
            check=None, wanting=(first,))
        for name, first, own in (
            ("read_lerobot", "path_or_repo", {
                "episodes": instance("None", also=("[0]",))}),
            ("read_minari", "name_or_path", {}),
            ("read_npz", "path", {"action_key": WORD}),
            ("read_replay_buffer", "path", {
                "action_key": WORD}),
            ("read_robomimic", "path", {
                "filter_key": instance("None", also=("'train'",)),
                "rotation_6d": FLAG}),
        )
    ),
    Target("robots.read_rlds", {"name": ("'no_such'", WORD)}, {
        "split": WORD, "data_dir": PATH, "drop_last": FLAG},
        check=None, wanting=("name",)),
    Target("robots.write_replay_buffer", {
        "path": ("folder + '/a.zarr'", PATH_TO_WRITE),
        "episodes": ("small.episodes()", EPISODES)}, {"chunk": AT_LEAST_1},
        check=None),
    Target("robots.EnvPool", {
        "make": ("Environment", instance(also=("int",))),
        "num_envs": ("1", AT_LEAST_1)}, {"processes": integer(1, none=True)},
        "made.close()", check=None, slow=True),
    Target("robots.make_env", {"task": ("'no_such'", WORD)}, check=None),
    Target("robots.demonstrations", {
        "task": ("'no_such'", WORD), "num": ("1", AT_LEAST_1)},
        {"seed": SEED, "noise": real(0.0)}, check=None, slow=True,
        wanting=("task",)),
]  # fmt: skip
FIT = (
    "sit.fit(filled((4, 2)), epochs=1, batch_size=2, verbose=0, "
    "callbacks=[made])"
)
CALLBACKS = [
    Target("kf.callbacks.SampleGrid", {
        "folder": ("folder", PATH_TO_WRITE),
        "every": ("1", AT_LEAST_1)}, {
        "columns": integer(1, none=True), "scale": AT_LEAST_1,
        "decode": instance("None", also=("keep", "lambda x: x")),
        "tensorboard": instance("None", also=("folder",)),
    }, "made.set_model(labelled)", check=None, weight=2),
    Target("kf.callbacks.SampleMetric", {
        "metric": ("lambda x: float(x.sum())", instance(
            "lambda x: 1.0")),
        "every": ("1", AT_LEAST_1),
        "num_samples": ("2", AT_LEAST_1),
        "num_steps": ("1", AT_LEAST_1)}, {
        "name": NAME, "seed": SEED,
        "file": instance("None", also=("folder + '/a.jsonl'",)),
    }, FIT, check=None, weight=2),
    Target("kf.callbacks.Checkpoint", {
        "directory": ("folder", PATH_TO_WRITE)}, {
        "every_steps": integer(1, none=True), "keep": AT_LEAST_1,
        "every_minutes": positive(none=True),
    }, check=None, weight=2),
    Target("kf.callbacks.image_grid", {
        "images": ("images()", array((3, 8, 8, 3)))}, {
        "columns": integer(1, none=True), "scale": AT_LEAST_1,
        "border": integer(0)}, weight=3),
    Target("kf.callbacks.write_image", {
        "path": ("folder + '/a.png'", PATH_TO_WRITE),
        "picture": ("filled((4, 4, 3), 'uint8')",
                    array((4, 4, 3), "uint8", integers=True))}, check=None),
]  # fmt: skip
TEXT = listed(
    ("None", "'A model.'", "'a word'", "'0.5'", "'2'"), unclear=("''",)
)
HANDLE = instance(
    also=("folder", "'no_such'", "'hf://x'", "'kaggle://x'", "'ftp://x'",
          "'https://example.invalid/a.zip'"),
)  # fmt: skip
PRESETS = [
    Target("kf.from_preset", {"preset": (
        "'lsd_checkerboard'", HANDLE)}, {
        "load_weights": FLAG,
        "dtype": instance("None", "'float32'", "'bfloat16'",
                          also=("'float16'", "'float64'", "'int32'", "int",
                                "np.float32")),
        "cls": instance("keras.Model", "kf.Interface",
                        also=("kf.EDMInterface", "sit", "int")),
    }, "made.generate(2, seed=0, num_steps=1)", check=(2, 2), weight=2,
        aliases={"preset": "No preset at"}),
    Target("kf.Interface.from_preset", {"preset": (
        "'lsd_checkerboard'", HANDLE)}, {"load_weights": FLAG}, check=None,
        aliases={"preset": "No preset at"}),
    Target("kf.presets.save_to_preset", {
        "model": ("sit", instance("sit", "policy", also=("mlp()",))),
        "preset_dir": ("folder + '/a'", PATH_TO_WRITE)}, {
        "metadata": listed(("None", "{'a': 1}"), ("[1]",),
                           unclear=("{}", "[]", "()", "''")),
        "card": instance("None", "kf.presets.Card('A model.')"),
        "max_shard_size": positive(most=1.0, none=True),
        "weights_dtype": choice("float16", none=True),
    }, check=None, weight=2),
    Target("sit.save_to_preset", {
        "preset_dir": ("folder + '/a'", PATH_TO_WRITE)}, check=None),
    Target("kf.presets.slim", {"model": ("sit", instance(
        "sit", "labelled", also=("policy", "flow_map", "mlp()")))},
        use="made.generate(2, seed=0, num_steps=1, condition=[0, 1] "
            "if made.null_label else None)"),
    Target("kf.presets.describe", {}, {"name": choice(
        "lsd_checkerboard", "sit_digits", none=True)}, check=None),
    Target("kf.presets.preset_folder", {"handle": (
        "'sit_digits'", HANDLE)}, check=None,
        aliases={"handle": "No preset at"}),
    Target("kf.presets.register", {
        "name": ("'digits'", instance(also=("'sit_digits'", "'a/b'"))),
        "entry": ("kf.presets.Entry('x', handle=None)", instance())},
        check=None, wanting=("entry",)),
    Target("kf.presets.convert", {
        "source": ("folder", PATH),
        "kind": ("'sit'", choice("sit", "dit", "edm", "vae"))}, {
        "out": PATH, "ema": instance("None", "True", "False"),
        "options": instance("None", "{}", also=("{'depth': 1}",)),
    }, check=None, slow=True, wanting=("source",)),
    Target("kf.presets.torch_state", {
        "model": ("sit", instance(also=("mlp()",))),
        "kind": ("'sit'", choice("sit", "dit"))}, check=None, slow=True,
        wanting=("model",)),
    Target("kf.presets.upload_preset", {
        "preset": ("folder", instance(also=("folder",))),
        "handle": ("'hf://a/b'", instance(also=("'no_such'",)))},
        check=None, slow=True, wanting=("preset",)),
    Target("kf.presets.Card", {}, {
        "description": TEXT, "license": TEXT,
        "metrics": listed(("{}", "{'a': 1}"), unclear=("{'a': 1}",)),
        "tags": listed(("()", "('a',)", "['a', 'b']", "[]"))},
        "kf.presets.save_to_preset(sit, folder + '/a', card=made)",
        check=None),
]  # fmt: skip
SERVING = [
    Target("kf.serving.from_preset", {
        "handle": ("'lsd_checkerboard'", HANDLE)}, {
        "num_steps": integer(1, none=True),
        "guidance_scale": instance("1.0", also=("2.0", "0.5"))},
        check=None, aliases={"handle": "No preset at"}),
    Target("kf.serving.from_export", {"folder": ("folder", PATH)},
           check=None, aliases={"folder": "No export at"}),
    Target("kf.serving.create_app", {"source": (
        "kf.serving.from_preset('lsd_checkerboard')", instance(
            also=("sit", "'lsd_checkerboard'")))}, {
        "sizes": listed(("(1, 4)", "[2]"),
                        ("(0,)", "(-1,)", "('a',)", "(1.5,)"),
                        ("(4, 1)", "(1, 1)"), unclear=("[1, 2]",)),
        "wait_ms": real(0.0), "max_samples": AT_LEAST_1,
        "max_bytes": AT_LEAST_1, "max_waiting": AT_LEAST_1,
        "max_requests": AT_LEAST_1, "max_values": AT_LEAST_1,
        "body_seconds": positive(),
        "allowed_hosts": listed(
            ("('a.example.com',)", "[]"), ("('',)", "(1,)"),
            unclear=("[1, 2]", "('a',)", "(0,)", "(-1,)", "(1.5,)"))},
           check=None),
]  # fmt: skip
TRAINING = [
    Target("kf.training.Progress", {"total_steps": ("3", AT_LEAST_1)},
           {"name": NAME}, check=None),
    Target("kf.training.SeedGenerator", {}, {"seed": SEED, "name": NAME},
           "made.next()"),
    Target("kf.training.spread_seeds", {
        "seed": ("1", integer(0, most=2**31)), "count": ("2", AT_LEAST_1)}),
    Target("kf.training.AlternatingOptimizer", {
        "optimizer": ("keras.optimizers.SGD(0.1)", instance(
            "keras.optimizers.SGD(0.1)", "'sgd'",
            also=("keras.optimizers.SGD",)))}, {
        "second": instance("None", "'sgd'", "keras.optimizers.SGD(0.1)"),
        "second_steps": AT_LEAST_1, "name": NAME}, check=None),
    Target("kf.training.Snapshot", {
        "network": ("mlp()", instance("mlp()", also=("sit",))),
        "name": ("'copy'", NAME)}, check=None),
]  # fmt: skip
TARGETS = (
    METRICS + DATASETS + ROBOTS + CALLBACKS + PRESETS + SERVING + TRAINING
)  # fmt: skip
