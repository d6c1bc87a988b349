"""Export a sampler, run it in plain TensorFlow, and serve it over HTTP.

    KERAS_BACKEND=jax python examples/serve.py

TensorFlow writes and runs the file, whatever the backend; docs/serving.md
tells more.
"""

import json
import tempfile
import threading
import time
import urllib.request

import keras
import numpy as np
import tensorflow as tf
import uvicorn

import keras_flows as kf

model = kf.Interface.from_preset("lsd_checkerboard")
expected = keras.ops.convert_to_numpy(model.generate(16, num_steps=4, seed=0))
folder = tempfile.mkdtemp() + "/served"
model.export(folder, num_steps=4, verbose=False)

serve = tf.saved_model.load(folder).signatures["serve"]
# The noise of `generate(seed=0)`.
rng = np.random.Generator(np.random.Philox(0))
noise = rng.standard_normal((16, 2), dtype="float32")
samples = serve(noise=tf.constant(noise))["samples"].numpy()

app = kf.serving.create_app(kf.serving.from_export(folder))
server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error"))
threading.Thread(target=server.run, daemon=True).start()
while not server.started:
    time.sleep(0.1)
port = server.servers[0].sockets[0].getsockname()[1]
request = urllib.request.Request(
    f"http://127.0.0.1:{port}/sample",
    json.dumps({"num_samples": 16, "seed": 0}).encode(),
    {"content-type": "application/json"},
)
answer = json.load(urllib.request.urlopen(request))
server.should_exit = True
print(
    "Largest difference from generate:",
    f"{np.abs(samples - expected).max():.0e} in TensorFlow,",
    f"{np.abs(np.array(answer['samples']) - expected).max():.0e} over HTTP",
)
