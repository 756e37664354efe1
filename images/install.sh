#!/bin/sh
# In an image's build, after dependencies.sh: installs the code that was copied here and writes the bill of materials.
#   images/install.sh MODULE
# What goes into the image is /opt/code, a layer of its own over /opt/dubstage. MODULE is imported once, so that a missing
# dependency or system library ends the build and not the first start.
set -eu
module=$1
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
pip=/opt/build/bin/pip
# shellcheck disable=SC2086
{
    $pip --quiet wheel ${PIP_ARGUMENTS:-} --no-deps --wheel-dir /tmp/wheels ./protos .
    $pip --quiet install ${PIP_ARGUMENTS:-} cyclonedx-bom==7.5.0
}
$pip --quiet --python /opt/dubstage/bin/python install --no-index --no-deps --no-warn-script-location --root /opt/code /tmp/wheels/*.whl
$pip --quiet --python /opt/dubstage/bin/python install --no-index --no-deps /tmp/wheels/*.whl
/opt/build/bin/cyclonedx-py environment --output-reproducible --mc-type application --pyproject pyproject.toml \
    --output-file /opt/code/opt/dubstage/sbom.json /opt/dubstage/bin/python
# The command line belongs to the gateway.
[ -d gateway/cli ] || rm /opt/code/opt/dubstage/bin/dubstage
cd /
/opt/dubstage/bin/python -c "import importlib, sys; importlib.import_module(sys.argv[1])" "$module"
