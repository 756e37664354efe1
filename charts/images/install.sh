#!/bin/sh
# In the build of an image, after dependencies.sh: installs the code that was copied here, writes the bill of materials, and writes
# /opt/dubstage/bin/serve, which runs the service.
#   charts/images/install.sh CODE MODULE[,MODULE...]
# CODE is the folder of the service, such as services/audio. Each MODULE is imported once, so that a missing dependency or system library
# ends the build and not the first start. The result is /opt/code, a layer of its own over /opt/dubstage.
set -eu
code=${1:?give the folder of the service, such as services/audio}
modules=${2:?give the modules to import, such as services.audio.__main__}
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
{
    echo '#!/bin/sh'
    echo "exec /opt/dubstage/bin/python -m $(echo "$code" | tr / .) \"\$@\""
} > /opt/code/opt/dubstage/bin/serve
chmod 755 /opt/code/opt/dubstage/bin/serve
cd /
/opt/dubstage/bin/python -c "import importlib, sys; [importlib.import_module(name) for name in sys.argv[1].split(',')]" "$modules"
