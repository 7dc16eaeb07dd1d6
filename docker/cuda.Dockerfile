# Not built yet where this project is developed. Needs an NVIDIA driver and the NVIDIA Container Toolkit. From the repository's folder:
#   docker build -f docker/cuda.Dockerfile -t s2mlp-deploy:cuda .
#   docker run --rm --gpus all -v "$PWD:/work" s2mlp-deploy:cuda s2mlp-export ckpt.pt --format trt --precision fp16
# On a Jetson, NVIDIA's own builds of the runtimes take the place of these (docs/gpu.md).
FROM python:3.11-slim AS build
WORKDIR /source
COPY pyproject.toml README.md LICENSE ./
COPY s2mlp_deploy s2mlp_deploy
COPY exporters exporters
COPY bench bench
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels .

# PyTorch, ONNX Runtime and TensorRT bring CUDA's libraries themselves; the image needs none.
FROM python:3.11-slim
COPY --from=build /wheels /wheels
RUN wheel=$(ls /wheels/*.whl) \
    && pip install --no-cache-dir "$wheel[gpu,trt,sign]" \
    && rm -r /wheels \
    && useradd --create-home user
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
USER user
WORKDIR /work
CMD ["s2mlp-doctor"]
