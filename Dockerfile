# One image for every role of fedci; compose.yaml says which container plays which. Build: docker build -t fedci .
#
# Python's packages come from the lock file, each checked against its hash. Nothing runs as root: uid 1000 owns the
# federation's directories, since every secret must belong to whoever reads it. bubblewrap is for workers, git for
# controllers, which resolve revisions. A worker's container must be allowed user namespaces: see compose.yaml.
FROM python:3.11-slim-bookworm

RUN apt-get update \
 && apt-get install -y --no-install-recommends bubblewrap git \
 && rm -rf /var/lib/apt/lists/*

ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PATH=/opt/fedci/bin:$PATH
RUN python -m venv /opt/fedci
COPY requirements.lock /usr/src/fedci/
RUN pip install --require-hashes -r /usr/src/fedci/requirements.lock

# hatchling is in the lock, so building our own wheel fetches nothing.
COPY . /usr/src/fedci
RUN pip install --no-deps --no-build-isolation /usr/src/fedci

RUN useradd --uid 1000 --create-home fedci \
 && install -d -o fedci -g fedci -m 700 /federation
USER fedci
WORKDIR /federation
VOLUME /federation
ENTRYPOINT ["fedci"]
CMD ["--help"]
