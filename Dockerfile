FROM python:3.13-slim AS build
WORKDIR /app
COPY requirements.lock requirements-s3.lock ./
# Set (--build-arg WITH_S3=1), the image can keep attachments in S3, too.
ARG WITH_S3=""
# The environment is made without pip: the base image's own installs into it, from wheels alone, so that no compiler is missed.
RUN python -m venv --without-pip /venv \
 && python -m pip --python /venv/bin/python install --no-cache-dir --disable-pip-version-check --only-binary=:all: \
    --require-hashes -r requirements.lock ${WITH_S3:+-r requirements-s3.lock} \
 && rm requirements*.lock
COPY migrations migrations
COPY sql sql
COPY service service
# Readable by any user, whatever the umask of the checkout; compiled here, because nothing is written later on.
RUN chmod -R a+rX . && python -m compileall -q service


FROM python:3.13-slim
# These folders are the user's, because a new volume that is mounted there takes over owner and mode.
RUN groupadd --system --gid 10001 service \
 && useradd --system --uid 10001 --gid 10001 --home-dir /app --no-create-home --shell /usr/sbin/nologin service \
 && install -d -o 10001 -g 10001 -m 755 /run/secrets \
 && install -d -o 10001 -g 10001 -m 700 /var/lib/attachments
WORKDIR /app
COPY --from=build /venv /venv
COPY --from=build /app /app
# LOG_FILE is empty: a container logs to stdout alone, and its root file system may be read-only.
ENV PATH=/venv/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 HOST=0.0.0.0 LOG_FILE="" HEALTH_PATH=/healthz \
    ATTACHMENTS_URL=file:///var/lib/attachments
USER 10001:10001
EXPOSE 8000
# Health is /healthz, that the process answers: some platforms (Swarm, ECS) replace what is unhealthy, and a service that
# waits for its database must not be restarted over and over for it. Where health only says whom to wait for, as in
# docker-compose.yml, HEALTH_PATH=/readyz asks for the database and its schema as well.
HEALTHCHECK --interval=10s --timeout=6s --start-period=30s --retries=3 \
    CMD ["python", "-c", "import http.client, os, sys; \
c = http.client.HTTPConnection('127.0.0.1', int(os.environ.get('PORT') or 8000), timeout=5); \
c.request('GET', os.environ['HEALTH_PATH']); \
sys.exit(c.getresponse().status != 200)"]
ENTRYPOINT ["python", "-m", "service"]
CMD ["serve"]
