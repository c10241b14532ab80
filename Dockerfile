# MusicBox with all that its command needs, as a user who may write only to /data.
#
#     docker build --tag musicbox .
#     docker run --rm --user "$(id -u):$(id -g)" --volume "$PWD/data:/data" musicbox compare --seeds 1
#
# How to serve with it: docs/serving.md.
FROM python:3.11.13-slim-bookworm AS build
RUN apt-get update \
    && apt-get install --yes --no-install-recommends gcc libc6-dev \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /src
RUN python -m venv /opt/musicbox
COPY requirements.lock ./
RUN /opt/musicbox/bin/pip install --no-cache-dir --disable-pip-version-check -r requirements.lock
COPY . .
RUN /opt/musicbox/bin/pip install --no-cache-dir --disable-pip-version-check --no-deps .

FROM python:3.11.13-slim-bookworm
COPY --from=build /opt/musicbox /opt/musicbox
# A volume mounted at /data/.cache begins with the owner that the folder has here.
RUN useradd --create-home --uid 1000 musicbox \
    && install --directory --owner=musicbox --group=musicbox /data /data/.cache
ENV PATH=/opt/musicbox/bin:$PATH \
    MUSICBOX_CACHE=/data/.cache \
    NUMBA_CACHE_DIR=/data/.cache/numba \
    OMP_NUM_THREADS=1 \
    OPENBLAS_NUM_THREADS=1 \
    PYTHONDONTWRITEBYTECODE=1
USER musicbox
WORKDIR /data
ENTRYPOINT ["musicbox"]
CMD ["--help"]
