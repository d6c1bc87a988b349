// Samples of the service that this page came from.

async function describe() {
  const answer = await fetch("model");
  if (!answer.ok) throw new Error(`the service answers ${answer.status}`);
  return answer.json();
}

async function sampled(request, model, signal) {
  const images = isImage(model.output_shape);
  const body = {num_samples: request.count, seed: request.seed,
                encoding: images ? "png" : "json"};
  if (!model.fixed) {
    body.num_steps = request.steps;
    body.guidance_scale = request.guidance;
  }
  if (request.label !== null) body.condition = request.label;
  const answer = await fetch("sample", {method: "POST", signal,
    headers: {"content-type": "application/json"}, body: JSON.stringify(body)});
  const result = await answer.json();
  if (!answer.ok) {
    const told = result.detail;
    throw new Error(Array.isArray(told)
      ? told.map(one => `${one.loc.slice(1).join(".")}: ${one.msg}`).join("; ")
      : told);
  }
  const found = {shape: result.shape, milliseconds: result.milliseconds};
  if (images) {
    found.images = result.samples.map(png => `data:image/png;base64,${png}`);
  } else found.samples = result.samples;
  return found;
}
