"""The HTTP service of `keras_flows.serving`: answers, limits, batches."""

import json
import threading

import numpy as np
import pytest
from keras import ops

import keras_flows as kf

pytest.importorskip("uvicorn")
pytest.importorskip("fastapi")

from helpers.services import SIZES
from helpers.services import call
from helpers.services import fake
from helpers.services import noise_of
from helpers.services import serving

from keras_flows.serving import sources
from keras_flows.serving.load import load

pytestmark = pytest.mark.once


def test_answers():
    """The noise of `generate(seed=...)`, labels and steps as asked for."""
    source, _ = fake()
    with serving(source) as url:
        body = {"num_samples": 3, "seed": 7, "condition": 2, "num_steps": 5}
        status, answer = call(f"{url}/sample", body)
        assert status == 200 and answer["seed"] == 7
        np.testing.assert_allclose(
            answer["samples"], noise_of(7, 3) + 25.0, rtol=1e-6
        )
        # Rows of labels, the default steps, a seed of the service's own.
        status, answer = call(f"{url}/sample", {"condition": [0, 1]})
        assert status == 200
        np.testing.assert_allclose(
            answer["samples"],
            noise_of(answer["seed"], 2) + [[1.0], [11.0]],
            rtol=1e-6,
        )
        _, other = call(f"{url}/sample", {"condition": [0, 1]})
        assert other["seed"] != answer["seed"]
        status, told = call(f"{url}/model")
        assert told["sample_shape"] == [2] and told["null_label"] == 4


def test_several_labels_a_sample(tmp_path):
    network = kf.networks.DiT(
        (4, 4, 1), 4, width=8, depth=1, num_heads=2,
        num_classes={"hue": 5, "shape": 3},
    )  # fmt: skip
    model = kf.SiTInterface(network, ema=None, seed=0)
    model.save_to_preset(tmp_path / "preset")
    source = sources.from_preset(str(tmp_path / "preset"), num_steps=2)
    labels = {"hue": [4, 0], "shape": [1, 2]}
    with serving(source) as url:
        status, answer = call(f"{url}/sample", {"seed": 3, "condition": labels})
        assert status == 200
        assert np.shape(answer["samples"]) == (2, 4, 4, 1)
        for wrong, field in (
            ({"hue": [6, 0], "shape": [1, 2]}, "condition.hue"),
            ({"hue": [4, 0], "shape": [4, 2]}, "condition.shape"),
            ({"hue": [4, 0]}, "condition"),
        ):
            status, answer = call(f"{url}/sample", {"condition": wrong})
            assert status == 422
            (problem,) = json.loads(answer)["detail"]
            assert ".".join(problem["loc"][1:]) == field
        _, told = call(f"{url}/model")
        assert told["null_label"] == {"hue": 5, "shape": 3}


@pytest.mark.parametrize(
    "field, body",
    [
        ("num_samples", {"num_samples": "three", "condition": 1}),
        ("num_samples", {"num_samples": 0, "condition": 1}),
        ("num_samples", {"num_samples": True, "condition": 1}),
        ("num_samples", {"num_samples": 3, "condition": [1, 2]}),
        ("seed", {"seed": -1, "condition": 1}),
        ("num_steps", {"num_steps": 65, "condition": 1}),
        ("guidance_scale", {"guidance_scale": "much", "condition": 1}),
        ("encoding", {"encoding": "gif", "condition": 1}),
        ("encoding", {"encoding": "png", "condition": 1}),
        ("condition", {}),
        ("condition", {"condition": 5}),
        ("condition", {"condition": -1}),
        ("condition", {"condition": 1.5}),
        ("condition", {"condition": [[1, 2]]}),
        ("condition", {"condition": [[1], [1, 2]]}),
        ("condition", {"condition": []}),
        ("condition", {"condition": "cat"}),
        ("condition", {"condition": 10**30}),
        ("num_sample", {"num_sample": 3, "condition": 1}),
    ],
)
def test_a_malformed_request_names_the_field(field, body, url_of_fake):
    status, answer = call(f"{url_of_fake}/sample", body)
    assert status == 422
    (problem,) = json.loads(answer)["detail"]
    assert problem["loc"][:2] == ["body", field]


@pytest.fixture(scope="module")
def url_of_fake():
    with serving(fake()[0], max_bytes=2000) as url:
        yield url


def test_no_json_and_other_models(url_of_fake):
    assert call(f"{url_of_fake}/sample", b"{nothing")[0] == 422
    source, _ = fake(fixed=True, null_label=None, num_steps=2)
    with serving(source) as url:
        for field, value in (("num_steps", 3), ("guidance_scale", 2.0)):
            status, answer = call(
                f"{url}/sample", {field: value, "condition": 1}
            )
            assert status == 422 and field in answer
        body = {"num_steps": 2, "condition": 1}
        assert call(f"{url}/sample", body)[0] == 200
    both = {"arm": ((2,), "float32"), "object": ((1,), "float32")}
    policy = sources.Source(
        "policy",
        (3,),
        both,
        lambda inputs, *_: inputs["noise"] + inputs["arm"][:, :1],
        num_steps=1,
    )
    with serving(policy) as url:
        rows = {"arm": [[1, 2], [3, 4]], "object": [0.5]}
        status, answer = call(f"{url}/sample", {"condition": rows, "seed": 0})
        assert status == 200
        np.testing.assert_allclose(
            answer["samples"], noise_of(0, 2, (3,)) + [[1.0], [3.0]], rtol=1e-6
        )
        rows["arm"] = [[1, 2, 3]]
        status, answer = call(f"{url}/sample", {"condition": rows})
        assert status == 422
        (problem,) = json.loads(answer)["detail"]
        assert problem["loc"] == ["body", "condition", "arm"]
        assert call(f"{url}/sample", {"condition": {"arm": [1, 2]}})[0] == 422


def test_oversized_requests(url_of_fake):
    url = f"{url_of_fake}/sample"
    assert call(url, {"num_samples": 101, "condition": 1})[0] == 413
    assert call(url, {"condition": [1] * 101})[0] == 413
    assert call(url, {"condition": [1] * 2000})[0] == 413
    # A body that does not tell its length.
    host, port = url_of_fake.removeprefix("http://").split(":")
    import http.client

    connection = http.client.HTTPConnection(host, int(port), timeout=30)
    connection.request(
        "POST",
        "/sample",
        iter([b"[" * 1500, b"[" * 1500]),
        {"content-type": "application/json"},
        encode_chunked=True,
    )
    assert connection.getresponse().status == 413
    connection.close()
    assert call(url, {"num_samples": 100, "condition": 1})[0] == 200


def test_200_concurrent_requests_share_batches():
    """Each gets its own samples; batches have few, static sizes."""
    source, seen = fake(delay=0.005)
    with serving(source) as url:
        assert sorted(seen) == list(SIZES)
        figures = load(url, 200, 200, {"num_samples": 1, "condition": 0})
        stats = call(f"{url}/stats")[1]
        # Half of them larger than a batch.
        status, answer = call(
            f"{url}/sample", {"num_samples": 50, "seed": 3, "condition": 0}
        )
    assert figures["answers"] == 200 and not figures["failures"]
    assert 0 < figures["p50_ms"] <= figures["p99_ms"]
    assert set(seen) <= set(SIZES)
    assert stats["rows"] == 200 and stats["batches"] < 100
    np.testing.assert_allclose(
        answer["samples"], noise_of(3, 50) + 1.0, rtol=1e-6
    )


def test_different_settings_do_not_share_a_batch():
    source, _ = fake(delay=0.02)
    with serving(source, wait_ms=50.0) as url:
        answers = {}

        def ask(steps):
            body = {"num_steps": steps, "seed": steps, "condition": 0}
            answers[steps] = call(f"{url}/sample", body)[1]["samples"]

        threads = [
            threading.Thread(target=ask, args=(steps,)) for steps in range(1, 9)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    for steps, samples in answers.items():
        np.testing.assert_allclose(
            samples, noise_of(steps, 1) + steps, rtol=1e-6
        )


def test_a_failure_and_too_many_requests_leave_it_running():
    source, _ = fake(delay=0.2)
    with serving(source, max_waiting=16, wait_ms=0.0) as url:
        assert call(f"{url}/sample", {"condition": 3})[0] == 500
        statuses = []

        def ask():
            body = {"num_samples": 12, "condition": 1}
            statuses.append(call(f"{url}/sample", body)[0])

        threads = [threading.Thread(target=ask) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert set(statuses) == {200, 503}
        assert call(f"{url}/sample", {"condition": 1})[0] == 200


def test_a_preset_gives_what_generate_gives():
    source = sources.from_preset("lsd_checkerboard", num_steps=2)
    model = kf.Interface.from_preset("lsd_checkerboard")
    with serving(source, sizes=(4,)) as url:
        for steps, asked in ((2, {}), (1, {"num_steps": 1})):
            body = {"num_samples": 6, "seed": 11, **asked}
            status, answer = call(f"{url}/sample", body)
            assert status == 200 and answer["num_steps"] == steps
            expected = model.generate(6, num_steps=steps, seed=11)
            np.testing.assert_allclose(
                answer["samples"], ops.convert_to_numpy(expected), atol=1e-5
            )


def test_an_export_that_is_none(tmp_path):
    with pytest.raises(ValueError, match="no signature.json"):
        sources.from_export(tmp_path)
