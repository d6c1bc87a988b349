// Samples of model.onnx beside this page, by ONNX Runtime in the browser.

const runtime = "RUNTIME";
let session, ort, range;

async function describe() {
  if (typeof WebAssembly === "undefined") {
    throw new Error("This browser has no WebAssembly, which the model needs.");
  }
  if (location.protocol === "file:") {
    throw new Error("Browsers read no files from file://. Serve this folder: "
      + "python -m http.server");
  }
  const record = await (await fetch("signature.json")).json();
  try {
    ort = await import(new URL(runtime, location.href).href);
  } catch (error) {
    throw new Error(`ONNX Runtime was not found at ${runtime}.`);
  }
  ort.env.wasm.numThreads = 1;
  session = await ort.InferenceSession.create("model.onnx");
  const serve = record.endpoints.serve, inputs = {};
  for (const [name, {shape, dtype}] of Object.entries(serve.inputs)) {
    if (name !== "noise") inputs[name] = [shape.slice(1), dtype];
  }
  range = record.settings.output_range || [-1, 1];
  return {
    name: record.model, sample_shape: serve.inputs.noise.shape.slice(1),
    output_shape: Object.values(serve.outputs)[0].shape.slice(1), inputs,
    num_steps: record.settings.num_steps, fixed: true,
    guidance_scale: record.settings.guidance_scale ?? 1,
    null_label: record.null_label, highest_label: record.highest_label,
    max_samples: 256, max_steps: record.settings.num_steps,
  };
}

// Uniform numbers in (0, 1): sfc32 of a seed.
function uniform(seed) {
  let a = 0x9e3779b9, b = 0x243f6a88, c = 0xb7e15162, d = seed + 1 | 0;
  const next = () => {
    const t = (a + b | 0) + d | 0;
    d = d + 1 | 0;
    a = b ^ b >>> 9;
    b = c + (c << 3) | 0;
    c = (c << 21 | c >>> 11) + t | 0;
    return ((t >>> 0) + 0.5) / 4294967296;
  };
  for (let i = 0; i < 16; i++) next();
  return next;
}

// Standard normal numbers by Box and Muller: not those of `generate(seed=...)`.
function normal(seed, count) {
  const next = uniform(seed), values = new Float32Array(count);
  for (let i = 0; i < count; i += 2) {
    const radius = Math.sqrt(-2 * Math.log(next()));
    const angle = 2 * Math.PI * next();
    values[i] = radius * Math.cos(angle);
    if (i + 1 < count) values[i + 1] = radius * Math.sin(angle);
  }
  return values;
}

function asImage(values, [height, width, channels]) {
  const canvas = document.createElement("canvas");
  Object.assign(canvas, {width, height});
  const context = canvas.getContext("2d");
  const pixels = context.createImageData(width, height);
  const [low, high] = range;
  for (let i = 0; i < height * width; i++) {
    for (let c = 0; c < 3; c++) {
      const value = values[i * channels + (channels === 3 ? c : 0)];
      pixels.data[4 * i + c] = 255 * (value - low) / (high - low);
    }
    pixels.data[4 * i + 3] = 255;
  }
  context.putImageData(pixels, 0, 0);
  return canvas.toDataURL("image/png");
}

async function sampled(request, model) {
  const start = performance.now(), count = request.count;
  const shape = [count, ...model.sample_shape];
  const size = shape.reduce((a, b) => a * b);
  const feeds = {noise: new ort.Tensor(
    "float32", normal(request.seed, size), shape)};
  if (request.label !== null) {
    const whole = model.inputs.condition[1];
    const array = whole === "int64" ? BigInt64Array : Int32Array;
    const label = whole === "int64" ? BigInt(request.label) : request.label;
    feeds.condition = new ort.Tensor(
      whole, new array(count).fill(label), [count]);
  }
  const output = Object.values(await session.run(feeds))[0];
  if (!output.data.every(Number.isFinite)) {
    throw new Error("The model gives NaN or infinity.");
  }
  const each = output.data.length / count, rows = [];
  for (let i = 0; i < count; i++) {
    rows.push(output.data.slice(i * each, (i + 1) * each));
  }
  const found = {shape: [...output.dims],
                 milliseconds: performance.now() - start};
  const one = found.shape.slice(1);
  if (isImage(one)) found.images = rows.map(row => asImage(row, one));
  else found.samples = rows.map(row => Array.from(row));
  return found;
}
