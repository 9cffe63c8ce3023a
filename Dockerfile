# CPU by default; for NVIDIA GPUs: docker build --build-arg TORCH=cu128 -t selfsup:cuda .
# docker run --rm -v "$PWD:/work" selfsup pretrain photos/ --out runs/mine    (with GPUs: --gpus all)
FROM python:3.13-slim AS build
ARG TORCH=cpu
ARG EXTRAS=demo,text,tensorboard
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv /opt/selfsup
ENV PATH=/opt/selfsup/bin:$PATH
# torch alone first: it is large, and changes seldom
RUN pip install "torch>=2.6" "torchvision>=0.21" --index-url "https://download.pytorch.org/whl/${TORCH}"
WORKDIR /src
COPY pyproject.toml README.md LICENSE MANIFEST.in ./
COPY src ./src
# the version is that of this folder
# hadolint ignore=DL3013
RUN pip install ".[${EXTRAS}]"

FROM python:3.13-slim
ENV PATH=/opt/selfsup/bin:$PATH PYTHONUNBUFFERED=1 XDG_CACHE_HOME=/cache MPLCONFIGDIR=/cache/matplotlib \
    NUMBA_CACHE_DIR=/cache/numba
COPY --from=build /opt/selfsup /opt/selfsup
RUN useradd --create-home --uid 1000 selfsup && mkdir -p /work /cache && chown selfsup /work /cache
USER 1000
WORKDIR /work
ENTRYPOINT ["selfsup"]
CMD ["--help"]
