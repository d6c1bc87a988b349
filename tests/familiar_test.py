"""Names of other libraries get an answer that holds."""

import keras
import numpy as np
import pytest

import keras_flows as kf
from keras_flows.ops import familiar

pytestmark = pytest.mark.once


@pytest.fixture(scope="module")
def model():
    return kf.SiTInterface(kf.networks.MLP(2, 8, 1), seed=0)


@pytest.mark.parametrize("name", familiar.NAMES)
def test_the_package_says_what_to_write(name):
    with pytest.raises(AttributeError, match=f"'{name}': write ") as found:
        getattr(kf, name)
    answer = str(found.value).split(": write ")[1]
    for word in answer.replace("(", " ").replace(",", " ").split():
        if word.startswith("kf."):
            value = kf
            for part in word.removeprefix("kf.").split("."):
                value = getattr(value, part)


@pytest.mark.parametrize("name", familiar.METHODS)
def test_a_model_says_what_to_write(model, name):
    assert not hasattr(model, name)
    with pytest.raises(AttributeError, match=f"'{name}': write "):
        getattr(model, name)


@pytest.mark.parametrize("name", familiar.ARGUMENTS)
def test_generate_says_what_to_write(model, name):
    with pytest.raises(TypeError, match=f"`{name}`: write "):
        model.generate(4, **{name: 1})


def test_other_names_are_python_s_own_errors(model):
    with pytest.raises(AttributeError, match="no attribute 'nonsense'$"):
        _ = kf.nonsense
    with pytest.raises(AttributeError, match="'nonsense'$"):
        _ = model.nonsense
    with pytest.raises(TypeError, match="nonsense"):
        model.generate(4, nonsense=1)


def test_nothing_is_hidden(model, tmp_path):
    """Layers, variables and properties are found as before."""
    assert model.network is model.networks()[0]
    assert len(model.layers) >= 1 and model.weights
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras", compile=False)
    np.testing.assert_array_equal(
        *(
            keras.ops.convert_to_numpy(m.generate(3, num_steps=1, seed=0))
            for m in (model, again)
        )
    )
