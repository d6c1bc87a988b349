"""What every metric of features asks of them."""

import numpy as np

from keras_flows.ops import given


def check_features(features, argument):
    """Features as finite float64 (n, dim), or an error that names them."""
    features = given.array(argument, features, finite=False)
    if features.ndim != 2:
        raise ValueError(
            f"`{argument}` must have the shape (n, dim). "
            f"Received: {features.shape}."
        )
    if not np.isfinite(features).all():
        raise ValueError(
            f"`{argument}` hold NaN or infinity: a sample that is not finite "
            "has no place in a metric; find where it arose."
        )
    return features


def check_pair(real, fake):
    """Both as finite float64 (n, dim) of one dim."""
    real, fake = check_features(real, "real"), check_features(fake, "fake")
    if real.shape[1] != fake.shape[1]:
        raise ValueError(
            "`real` and `fake` must have as many features. Received: "
            f"{real.shape} and {fake.shape}; were they of one extractor?"
        )
    return real, fake
