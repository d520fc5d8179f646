# syntax=docker/dockerfile:1
# Sightline's server in a container.
#
#   docker build -t sightline .                                               CPU
#   docker build -t sightline:cuda --build-arg TORCH_INDEX= .                  NVIDIA GPU
#
# PYTHON_IMAGE may be any Debian image with Python 3.11 or later. The CUDA libraries come with the wheels on PyPI, so the
# GPU variant needs only the driver and the NVIDIA container toolkit on the host.
ARG PYTHON_IMAGE=python:3.11-slim

FROM ${PYTHON_IMAGE} AS build
# where torch comes from: wheels without CUDA; empty takes pip's own index, whose wheels bring CUDA
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv /opt/sightline
WORKDIR /src
COPY constraints.txt ./
RUN /opt/sightline/bin/pip install ${TORCH_INDEX:+--index-url "${TORCH_INDEX}"} -c constraints.txt torch
COPY pyproject.toml README.md LICENSE ./
COPY sightline ./sightline
# the last of it is pip itself: nothing is installed in a container that runs
RUN /opt/sightline/bin/pip install -c constraints.txt '.[serve,mcp]' && /opt/sightline/bin/pip uninstall -y pip

FROM ${PYTHON_IMAGE} AS run
RUN useradd --uid 10001 --no-create-home --home-dir /data --shell /usr/sbin/nologin sightline \
    && install -d -m 0700 -o sightline -g sightline /data \
    && install -d /media/files
COPY --from=build /opt/sightline /opt/sightline
# a container listens on every address of its own network, so the server refuses to start without SIGHTLINE_SERVE_KEYS
ENV PATH=/opt/sightline/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    XDG_DATA_HOME=/data \
    HF_HOME=/data/huggingface \
    SIGHTLINE_LIBRARY=/data/library.sightline \
    SIGHTLINE_SERVE_HOST=0.0.0.0 \
    SIGHTLINE_SERVE_PORT=8077 \
    SIGHTLINE_SERVE_ROOTS=/media/files
USER sightline
WORKDIR /data
# indexes, uploads and downloaded weights
VOLUME /data
EXPOSE 8077
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=5s --start-period=120s --retries=3 \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8077/health', timeout=4)"]
ENTRYPOINT ["sightline"]
CMD ["serve"]
