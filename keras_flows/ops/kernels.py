"""Functions of Keras and TensorFlow that are another inside a JVP."""

import functools

import keras


@functools.cache
def choose_kernels(in_jvp):
    """From now on take, where `in_jvp()`, what has a right derivative.

    Keras's flash and cuDNN attention have no forward derivative, and neither
    has the test of whether their inputs suit them. `tf.nn.moments`, which
    Keras normalises layers and groups by, stops the gradient of the mean
    inside the variance (TensorFlow 2.21, nn_impl.py): it is 0 there, but its
    own derivative is not, so that gradients through a JVP are 0.1 to 2 % off.
    """
    from keras.src.backend import nn

    attention = nn.dot_product_attention

    @functools.wraps(attention)
    def chosen(*args, flash_attention=None, **kwargs):
        if in_jvp():
            flash_attention = False
        return attention(*args, flash_attention=flash_attention, **kwargs)

    nn.dot_product_attention = chosen
    if keras.backend.backend() == "tensorflow":
        _choose_moments(in_jvp)


def _choose_moments(in_jvp):
    import tensorflow as tf

    stopped = tf.nn.moments

    @functools.wraps(stopped)
    def moments(x, axes, shift=None, keepdims=False, name=None):
        mean, variance = stopped(x, axes, shift, keepdims, name)
        if in_jvp():
            x = tf.convert_to_tensor(x)
            y = tf.cast(x, tf.float32) if x.dtype == tf.float16 else x
            y = y - tf.reduce_mean(y, axes, keepdims=True)
            variance = tf.reduce_mean(tf.square(y), axes, keepdims)
            variance = tf.cast(variance, x.dtype)
        return mean, variance

    tf.nn.moments = moments
