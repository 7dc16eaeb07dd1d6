# Not built yet where this project is developed. From the repository's folder:
#   docker build -f docker/cpu.Dockerfile -t s2mlp-deploy:cpu .
#   docker run --rm -v "$PWD:/work" s2mlp-deploy:cpu s2mlp-export ckpt.pt
FROM python:3.11-slim AS build
WORKDIR /source
COPY pyproject.toml README.md LICENSE ./
COPY s2mlp_deploy s2mlp_deploy
COPY exporters exporters
COPY bench bench
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels .

FROM python:3.11-slim
COPY constraints.txt /tmp/constraints.txt
COPY --from=build /wheels /wheels
RUN pip install --no-cache-dir --index-url https://download.pytorch.org/whl/cpu --constraint /tmp/constraints.txt torch \
    && wheel=$(ls /wheels/*.whl) \
    && pip install --no-cache-dir --constraint /tmp/constraints.txt "$wheel[export,openvino,litert,sign]" \
    && rm -r /wheels /tmp/constraints.txt \
    && useradd --create-home user
USER user
WORKDIR /work
CMD ["s2mlp-doctor"]
