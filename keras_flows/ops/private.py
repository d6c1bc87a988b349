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
        "keras.src.backend.common.stateless_scope.in_stateless_scope": (
            "whether variables have other values just now"
        ),
        "keras.src.backend.torch.random": "its draws, by generators of ours",
        "keras.src.backend.torch.core.get_device": "where draws are made",
        "keras.src.backend.torch.optimizers.torch_adam.Adam": (
            "the class that steps by `_parallel_update_step`"
        ),
        "_parallel_update_step": "an Adam's step on PyTorch, to fuse it",
        "_get_variable_index": "which slots of an optimizer are a variable's",
        "_momentums": "slots of Adam",
        "_velocities": "slots of Adam",
        "_velocity_hats": "slots of Adam",
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
        "torch.utils._python_dispatch.TorchDispatchMode": (
            "sees every operator that runs"
        ),
        "_len_torch_dispatch_stack": "whether anyone sees them",
        "_has_same_storage_numel": "an operator that reads no values",
        "_foreach_norm": "norms of all gradients at once",
        "_foreach_div": "a division of all gradients at once",
        "_foreach_lerp_": "a step of all averages at once",
        "_foreach_sub": "the same on a GPU, in three",
        "_foreach_mul_": "the same on a GPU, in three",
        "_foreach_add_": "the same on a GPU, in three",
        "_fused_adam_": "Adam in one pass over memory",
        "_ops": "the type of an operator",
        "_schema": "what an operator writes to, and of what it makes views",
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
