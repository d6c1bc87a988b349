"""An exception anywhere in training leaves the model's last good state."""

import os
import signal
import threading
import time

import keras
import numpy as np
import pytest
from keras import ops

import keras_flows as kf

BACKEND = keras.backend.backend()


def points(num=16):
    return np.random.default_rng(0).standard_normal((num, 2)).astype("float32")


def built(cls=kf.SiTInterface):
    keras.utils.set_random_seed(0)
    model = cls(kf.networks.MLP(2, width=8, depth=1), ema=0.9, seed=0)
    model.compile(keras.optimizers.SGD(0.1, momentum=0.9))
    return model


def state(model):
    """Every variable of model, optimizer and metrics; fails on a lost one."""
    variables = [
        *model.variables,
        *model.optimizer.variables,
        *model.metrics_variables,
    ]
    assert all(v._value is not None for v in variables)
    return [ops.convert_to_numpy(v.value) for v in variables]


def weights(model):
    return [
        ops.convert_to_numpy(v.value) for v in model.network.trainable_variables
    ]


def check(found, expected):
    for a, b in zip(found, expected, strict=True):
        assert np.isfinite(a).all()
        np.testing.assert_allclose(a, b, atol=1e-6)


def failing(at, error):
    """Batches of which the one at `at`, from 1, is an error."""
    for i in range(1, 6):
        if i == at:
            raise error
        yield (points(16),)


ERRORS = (KeyboardInterrupt, ValueError, MemoryError)


def raised(error):
    """`error`, or what TensorFlow makes of one in a graph's generator."""
    if BACKEND != "tensorflow":
        return error
    import tensorflow as tf

    return error, tf.errors.OpError


@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize("at", [1, 3])
def test_fit_keeps_the_last_good_step(at, error):
    expected = built()
    expected.train_on_batch(points(16))
    model = built()
    model.train_on_batch(points(16))
    for _ in range(at - 1):
        expected.train_on_batch(points(16))
    # The first batch that the generator yields is looked at, and yielded.
    with pytest.raises(raised(error)):
        model.fit(failing(at, error("here")), steps_per_epoch=5, verbose=0)
    check(weights(model), weights(expected))
    state(model)
    model.fit(points(), verbose=0)
    assert np.isfinite(ops.convert_to_numpy(model.generate(2, seed=0))).all()


@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize("at", [1, 3])
@pytest.mark.parametrize("what", ["evaluate", "validation"])
def test_evaluation_keeps_every_weight(at, error, what):
    model = built()
    model.fit(points(), shuffle=False, verbose=0)
    if what == "validation":
        model.fit(points(), shuffle=False, verbose=0)
    before, batches = weights(model), failing(at, error("here"))
    if what == "validation":
        model = built()
        model.fit(points(), shuffle=False, verbose=0)
    with pytest.raises(raised(error)):
        if what == "evaluate":
            model.evaluate(batches, steps=5, verbose=0)
        else:
            model.fit(
                points(),
                shuffle=False,
                validation_data=batches,
                validation_steps=5,
                verbose=0,
            )
    check(weights(model), before)
    state(model)
    model.evaluate(points(), verbose=0)


class Refuses(kf.SiTInterface):
    """Raises while its loss is traced, in training or in evaluation."""

    refuses = None

    def loss(self, x, condition=None, extras=None, *, training=True):
        if self.refuses == training:
            raise ValueError("a bad third element")
        return super().loss(x, condition, extras, training=training)


@pytest.mark.parametrize("method", ["fit", "train_on_batch"])
def test_an_error_in_the_first_trace_of_training(method):
    model = built(Refuses)
    before = weights(model)
    model.refuses = True
    with pytest.raises(ValueError, match="third element"):
        getattr(model, method)(points())
    check(weights(model), before)
    state(model)
    model.refuses = None
    model.fit(points(), verbose=0)


@pytest.mark.parametrize("method", ["evaluate", "test_on_batch"])
def test_an_error_in_the_first_trace_of_evaluation(method):
    model = built(Refuses)
    model.fit(points(), verbose=0)
    before = weights(model)
    model.refuses = False
    with pytest.raises(ValueError, match="third element"):
        getattr(model, method)(points())
    check(weights(model), before)
    state(model)
    model.refuses = None
    model.evaluate(points(), verbose=0)


class Raises(keras.callbacks.Callback):
    def __init__(self, method):
        super().__init__()
        setattr(self, method, self._raise)

    def _raise(self, *args, **kwargs):
        raise KeyboardInterrupt


@pytest.mark.parametrize(
    "method",
    ["on_train_batch_begin", "on_train_batch_end", "on_epoch_end",
     "on_test_batch_begin", "on_test_batch_end"],
)  # fmt: skip
def test_an_interrupt_in_a_callback(method):
    model = built()
    model.train_on_batch(points(16))
    with pytest.raises(KeyboardInterrupt):
        model.fit(
            points(),
            shuffle=False,
            validation_data=(points(),),
            callbacks=[Raises(method)],
            verbose=0,
        )
    expected = built()
    expected.train_on_batch(points(16))
    if method != "on_train_batch_begin":
        expected.train_on_batch(points(16))
    check(weights(model), weights(expected))
    state(model)


def test_an_interrupt_in_the_middle_of_steps():
    """Ctrl-C at any time: what a step was given is gone, its result is not."""
    model = built()
    x = points(8192)
    model.fit(x, batch_size=4096, verbose=0)
    running, raised = threading.Event(), [0.0]

    def interrupt(*args):
        # Python drops an exception that a finaliser raises: try again then.
        if running.is_set() and time.monotonic() - raised[0] > 5.0:
            raised[0] = time.monotonic()
            raise KeyboardInterrupt

    def knock():
        while running.is_set():
            time.sleep(0.5)
            os.kill(os.getpid(), signal.SIGINT)

    handler = signal.signal(signal.SIGINT, interrupt)
    running.set()
    knocking = threading.Thread(target=knock, daemon=True)
    knocking.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            model.fit(x, batch_size=4096, epochs=100_000, verbose=0)
    finally:
        running.clear()
        knocking.join()
        signal.signal(signal.SIGINT, handler)
    for value in state(model):
        assert np.isfinite(value).all()


@pytest.mark.skipif(BACKEND != "jax", reason="only JAX donates its state")
def test_a_state_used_up_by_a_failing_step_is_named():
    model = built()
    model.fit(points(), verbose=0)

    def consume(state, iterator):
        for values in state:
            for value in values:
                value.delete()
        raise MemoryError("while the step ran")

    model.train_function = consume
    with pytest.raises(MemoryError) as caught:
        model.fit(points(), verbose=0)
    assert "last checkpoint" in "".join(caught.value.__notes__)
    assert np.isnan(weights(model)[0]).all()
    state(model)
