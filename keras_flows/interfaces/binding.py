"""What the loop of a sampler calls: predictors of a request."""

from keras_flows import samplers


def bound_for(model, request, use_ema):
    """(bind, layers, guide's layers, start) as `Loop.run` takes them.

    Args:
        model: a `Generator`.
        request: the checked `Request`.
        use_ema: whether to use the averaged weights.
    """
    network, guide = model.inference_network(use_ema), request.guide
    # Compiled steps outlive the request and its arrays.
    where = request.interval, request.channels
    others = []
    if guide is not None:
        weak = guide.inference_network(use_ema)
        others = guide.sampling_layers(use_ema)

    def bind(inputs, guided):
        positive = model.bind(network, inputs.get("condition"))
        if not guided:
            return positive
        if guide is None:
            negative = model.bind(network, inputs["negative"])
        else:
            negative = guide.bind(weak, inputs.get("negative"))
        return samplers.Guided(positive, negative, inputs["scale"], *where)

    return bind, model.sampling_layers(use_ema), others, model.start
