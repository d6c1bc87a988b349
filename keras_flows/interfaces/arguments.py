"""Arguments of constructors: checked, and read from a config."""

from keras_flows.networks import deserialize_network

# Arguments that are attributes of the same name, and plain values.
PLAIN = (
    "t_mu", "t_sigma", "n_mu", "n_sigma", "x_sigma", "t_shift_base",
    "cond_drop_ratio", "null_label", "stable_target", "max_skipped_steps",
    "seed", "name",
)  # fmt: skip


def check_arguments(n_sigma, x_sigma, cond_drop_ratio):
    """Refuse numbers that no interface can work with."""
    for argument, value in (("n_sigma", n_sigma), ("x_sigma", x_sigma)):
        if not value > 0:
            raise ValueError(
                f"`{argument}` must be positive. Received: {value!r}."
            )
    if not 0.0 <= cond_drop_ratio <= 1.0:
        raise ValueError(
            "`cond_drop_ratio` must lie between 0 and 1. "
            f"Received: {cond_drop_ratio!r}."
        )


def deserialized(config, custom_objects=None):
    """A config whose serialised objects are objects again."""
    return {
        key: deserialize_network(value, custom_objects)
        if isinstance(value, dict) and "class_name" in value
        else value
        for key, value in config.items()
    }
