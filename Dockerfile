# The SDK and a worker in one image. Build it, then run a worker of your own from /srv/worker:
#   docker build -t my-worker .
#   docker run -e ORCHESTRATOR_URL=… -e WORKER_TOKEN=… my-worker worker run --app app:worker

# A tag can be moved. For builds that can be repeated name a digest:
#   docker build --build-arg BASE_IMAGE=python:3.12-slim@sha256:… -t my-worker .
ARG BASE_IMAGE=python:3.12-slim

FROM ${BASE_IMAGE} AS build
WORKDIR /build
RUN python -m venv /opt/venv
COPY pyproject.toml README.md LICENSE ./
COPY src src
RUN /opt/venv/bin/pip install --no-cache-dir --no-compile '.[s3,pydantic,metrics]' \
    && /opt/venv/bin/pip uninstall --yes pip

FROM ${BASE_IMAGE}
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends tini \
    && rm -rf /var/lib/apt/lists/*
RUN useradd --uid 10001 --no-create-home --home-dir /srv/worker worker \
    && install -d /srv/worker \
    && install -d -m 700 -o worker -g worker /srv/worker/state /srv/worker/files
COPY --from=build /opt/venv /opt/venv
WORKDIR /srv/worker
COPY deploy/worker/app.py app.py

# Everything the worker writes is below these two; its code belongs to root. The root file system may be read-only.
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    PYTHONPATH=/srv/worker \
    LOG_FORMAT=json \
    WORKER_STATE_DIR=/srv/worker/state \
    TASK_FILES_DIR=/srv/worker/files
VOLUME ["/srv/worker/state", "/srv/worker/files"]

USER 10001
EXPOSE 8083
HEALTHCHECK --interval=15s --timeout=6s --start-period=20s \
    CMD ["python", "-c", "import os, urllib.request; urllib.request.urlopen(f\"http://127.0.0.1:{os.environ.get('WORKER_PORT', '8083')}/live\", timeout=5)"]
# tini is process 1: it reaps what skills leave behind, and passes signals on from the first moment. The worker lets running
# tasks finish: give it 60 s (docker stop -t 60).
ENTRYPOINT ["tini", "--"]
CMD ["worker", "run", "--app", "app:worker"]
