# latlut for CPUs: ONNX Runtime, OpenVINO and PyTorch.
#
#     docker build -t latlut .
#     docker run --rm -v "$PWD:/work" latlut profile --cpu --plan tiny
#
# PyTorch's build for CPUs saves several GB; PyTorch's own page names the index that has it:
#
#     docker build -t latlut --build-arg PIP_EXTRA_INDEX_URL=... .
#
# The image itself has not been built yet; the tests install the same package into an empty
# environment.
#
# Measurements in a container are those of the host, as long as nothing else runs there: give it
# whole CPUs with --cpuset-cpus, not a share of them with --cpus.
FROM python:3.11-slim

ARG PIP_EXTRA_INDEX_URL=""
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1

COPY . /opt/latlut
RUN pip install --constraint /opt/latlut/constraints.txt "/opt/latlut[openvino]" \
    && rm -rf /opt/latlut/build /opt/latlut/*.egg-info

# Tables are written to ./profiles, runs to ./runs.
WORKDIR /work
ENTRYPOINT ["latlut"]
CMD ["--help"]
