# A service of a preset or an export, on the CPU.
#
#     docker build -t keras_flows .
#     docker run -p 8000:8000 keras_flows                 # serves a preset
#     docker run -p 8000:8000 -v "$PWD/served:/served" keras_flows \
#         --export=/served --host=0.0.0.0
FROM python:3.11-slim

ENV KERAS_BACKEND=jax \
    PIP_NO_CACHE_DIR=1 \
    PYTHONUNBUFFERED=1

WORKDIR /app
COPY pyproject.toml README.md LICENSE ./
COPY keras_flows keras_flows
RUN pip install ".[jax,serve]"

# No rights beyond what the service needs.
RUN useradd --create-home flows
USER flows

EXPOSE 8000
ENTRYPOINT ["python", "-m", "keras_flows.serving"]
CMD ["--preset=lsd_checkerboard", "--host=0.0.0.0"]
