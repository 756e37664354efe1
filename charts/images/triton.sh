#!/bin/sh
# In the build of the image triton: makes the environment /opt/triton with the server that nvidia-pytriton carries, and its bill of
# materials. services/render/triton/README.md says why it is an environment of its own, without dependencies.
#   charts/images/triton.sh REQUIREMENTS_FILE
# From the environment: PIP_ARGUMENTS, for every pip install.
set -eu
requirements=$1
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore

if ! ldconfig -p | grep -q 'libpython3\.11\.so\.1\.0'; then
    echo "BASE has no libpython3.11.so.1.0 (Debian: the package libpython3.11)" >&2
    exit 1
fi
python3.11 -m venv /opt/build
python3.11 -m venv --without-pip /opt/triton
# shellcheck disable=SC2086
{
    /opt/build/bin/pip --quiet --python /opt/triton/bin/python install ${PIP_ARGUMENTS:-} --no-deps --requirement "$requirements"
    /opt/build/bin/pip --quiet install ${PIP_ARGUMENTS:-} cyclonedx-bom==7.5.0
}
server=/opt/triton/lib/python3.11/site-packages/pytriton/tritonserver
mv "$server/backends" /opt/triton/backends
mv "$server/python_backend_stubs/3.11/triton_python_backend_stub" /opt/triton/backends/python/
rm -r "$server/python_backend_stubs"
ln -s "$server/bin/tritonserver" /opt/triton/bin/tritonserver
/opt/build/bin/cyclonedx-py environment --output-reproducible --mc-type application \
    --output-file /opt/triton/sbom.json /opt/triton/bin/python
