"""Arguments of constructors: checked, and read from a config."""

from keras_flows.networks import deserialize_network
from keras_flows.ops.scalars import FLAG
from keras_flows.ops.scalars import LOCATION
from keras_flows.ops.scalars import POSITIVE
from keras_flows.ops.scalars import SCALE
from keras_flows.ops.scalars import SEED
from keras_flows.ops.scalars import SHARE
from keras_flows.ops.scalars import SIZE
from keras_flows.ops.scalars import Optional
from keras_flows.ops.scalars import checked

# Arguments that are attributes of the same name, and plain values.
PLAIN = (
    "t_mu", "t_sigma", "n_mu", "n_sigma", "x_sigma", "t_shift_base",
    "cond_drop_ratio", "null_label", "stable_target", "max_skipped_steps",
    "seed", "name",
)  # fmt: skip


# Decorator of a constructor: what the numbers of any interface must be.
checked_numbers = checked(
    t_mu=LOCATION,
    t_sigma=SCALE,
    n_mu=LOCATION,
    n_sigma=SCALE,
    x_sigma=SCALE,
    t_shift_base=Optional(POSITIVE),
    cond_drop_ratio=SHARE,
    stable_target=FLAG,
    max_skipped_steps=SIZE,
    seed=SEED,
)


def deserialized(config, custom_objects=None):
    """A config whose serialised objects are objects again.

    A network that has a null label of its own tells it, also where it was
    changed to have other classes.
    """
    found = {
        key: deserialize_network(value, custom_objects)
        if isinstance(value, dict) and "class_name" in value
        else value
        for key, value in config.items()
    }
    if getattr(found.get("network"), "null_label", None) is not None:
        found.pop("null_label", None)
    return found
