"""What this package uses of others below their public names, and why.

These may change with any release of theirs. `SEEN` is the version in which
each was last seen to be there and to do what is said; a test finds every use
that is not listed here.
"""

SEEN = {
    "python": "3.11",
    "keras": "3.15.1",
    "torch": "2.13.0",
    "jax": "0.10.2",
    "metaworld": "3.1.1",
    "tensorflow_datasets": "4.9.10",
}

NAMES = {
    "python": {
        "_exit": "ends a process whose threads hang",
    },
    "keras": {
        "keras.src.backend.nn": "attention of the backend, to wrap it in JVPs",
        "keras.src.saving.saving_lib": "walks a model's weights, file or not",
        "_save_state": "the same walk, to see where each weight would lie",
        "_load_state": "the same walk, with checks of its own between",
        "_get_metrics_result_or_logs": "overridden: merged over processes",
        "_flatten_layers": "all layers inside a layer; `layers` is one level",
        "_non_trainable_variables": "of one layer, without those below it",
        "_get_own_losses": "of one layer, without those below it",
        "_is_quantized": "whether weights were replaced by integers",
        "_iterations": "an optimizer's counter; `iterations` of a scaler's",
        "_trainable_variables": "what an optimizer was built for, in order",
        "_variables": "an optimizer's own, without those it holds",
        "_layout": "how a JAX variable is laid over devices, before it exists",
        "_value": "a variable's array as it is, deleted or not",
        "_tracker": "lets a built layer change its variables",
        "_untrack_variable": "takes a variable out of a built layer",
        "_post_build": "closes a layer once it is built",
        "_symbolic_build": "overridden: Keras would call without a condition",
        "_get_jax_state": "overridden: adds what the JAX step carries",
        "_make_function": "overridden: steps with no other function around",
        "_last_update": "when the progress bar last printed",
        "_use_cached_eval_dataset": "an argument that `fit` gives `evaluate`",
        "_batches_seen_since_last_saving": "a ModelCheckpoint's, to resume it",
        "_last_batch_seen": "a ModelCheckpoint's, to resume it",
    },
    "torch": {
        "_C": "the dispatcher",
        "_functorch": "whether a transformation is under way",
        "_current_level": "whether forward mode is under way",
        "_ExcludeDispatchKeyGuard": "a call below functorch's transformations",
        "_parameters": "a module's, which sharding replaces",
        "_init_fn": "the functions of a custom operator",
        "torch._library.custom_ops.OPDEFS": "which custom operators there are",
    },
    "jax": {
        "jax.experimental.jax2tf": "a SavedModel of a JAX function",
        "jax.experimental.multihost_utils": "barriers between processes",
    },
    "metaworld": {
        "_partially_observable": "shows the goal to expert and policy",
        "_freeze_rand_vec": "draws the task anew in every episode",
        "_set_task_called": "an environment without a fixed task",
    },
    "tensorflow_datasets": {
        "_create_builder_config": "overridden: a config for any task's name",
    },
}
