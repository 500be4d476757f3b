# syntax=docker/dockerfile:1
# Debian, not Alpine: confluent-kafka has no musl wheels.
FROM python:3.12-slim AS build
WORKDIR /src
COPY requirements.lock requirements-build.lock pyproject.toml README.md LICENSE ./
COPY deploy/install.sh deploy/install.sh
COPY bridge bridge
RUN bash deploy/install.sh /opt/meisa-bridge

FROM python:3.12-slim
LABEL org.opencontainers.image.title="Meisa bridge" \
      org.opencontainers.image.licenses="Apache-2.0"
# Same path as in the build stage: a virtual environment does not move.
COPY --from=build /opt/meisa-bridge /opt/meisa-bridge
ENV PATH=/opt/meisa-bridge/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
# /var/lib/meisa-bridge is for state.url: sqlite:////var/lib/meisa-bridge/state.db, the one place that is written to: the root
# may be read-only. A named volume mounted there takes over its owner.
RUN useradd --system --uid 10001 --home-dir /nonexistent --shell /usr/sbin/nologin bridge \
 && install -d -o 10001 -g 10001 -m 0750 /var/lib/meisa-bridge /etc/meisa-bridge
USER 10001:10001
WORKDIR /etc/meisa-bridge
EXPOSE 8080
# /livez never needs the token. It is false only if the process should be killed. Where admin.listen has another port,
# give your own (docker run --health-cmd …); Kubernetes uses its own probes and ignores this.
HEALTHCHECK --interval=10s --timeout=3s --start-period=15s --retries=3 \
  CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:8080/livez', timeout=2)"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["meisa-bridge"]
CMD ["run", "-c", "/etc/meisa-bridge/bridge.yaml"]
